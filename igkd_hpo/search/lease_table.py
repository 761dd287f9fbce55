"""The table of leases: who holds which trial. Beside Optuna's tables, without a foreign key to them."""

from dataclasses import dataclass

from sqlalchemy import Column, Connection, Double, Integer, MetaData, String, Table, delete, select

from igkd_hpo.search.identity import ProcessIdentity

METADATA = MetaData()
LEASES = Table(
    "igkd_hpo_leases",
    METADATA,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("study_id", Integer, nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("worker", String(512), nullable=False),
    Column("host", String(512), nullable=False),
    Column("boot_id", String(512), nullable=False),
    Column("worker_pid", Integer, nullable=False),
    Column("worker_start", Double, nullable=False),
    Column("trial_pid", Integer),
    Column("trial_start", Double),
    Column("device", String(512)),
    Column("beat", Integer, nullable=False),
    Column("first_epoch", Integer, nullable=False),
    Column("last_epoch", Integer, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One row: a worker holds a trial.

    Args:
        trial_id: Optuna's id of the trial, unique in the database.
        attempt: which attempt at the trial this is, from 1.
        process: the worker; only it talks to the database.
        trial_process: what trains; None until it has started.
        device: where it trains; None until it has started.
        beat: goes up as long as the worker lives.
        first_epoch: finished epochs that the database knew when the attempt began.
        last_epoch: finished epochs now.
    """

    trial_id: int
    attempt: int
    worker: str
    process: ProcessIdentity
    trial_process: ProcessIdentity | None = None
    device: str | None = None
    beat: int = 0
    first_epoch: int
    last_epoch: int


def read_leases(connection: Connection, study_id: int) -> list[Lease]:
    """All leases of a study, by trial id."""
    rows = connection.execute(select(LEASES).where(LEASES.c.study_id == study_id).order_by(LEASES.c.trial_id))
    return [
        Lease(
            trial_id=row.trial_id,
            attempt=row.attempt,
            worker=row.worker,
            process=ProcessIdentity(
                host=row.host, boot_id=row.boot_id, pid=row.worker_pid, start_time=row.worker_start
            ),
            trial_process=None
            if row.trial_pid is None
            else ProcessIdentity(host=row.host, boot_id=row.boot_id, pid=row.trial_pid, start_time=row.trial_start),
            device=row.device,
            beat=row.beat,
            first_epoch=row.first_epoch,
            last_epoch=row.last_epoch,
        )
        for row in rows
    ]


def write_lease(connection: Connection, study_id: int, lease: Lease) -> None:
    """Write a new lease, in place of a row that a deleted study left under the same trial id."""
    drop_lease(connection, lease.trial_id)
    connection.execute(
        LEASES.insert().values(
            trial_id=lease.trial_id,
            study_id=study_id,
            attempt=lease.attempt,
            worker=lease.worker,
            host=lease.process.host,
            boot_id=lease.process.boot_id,
            worker_pid=lease.process.pid,
            worker_start=lease.process.start_time,
            beat=lease.beat,
            first_epoch=lease.first_epoch,
            last_epoch=lease.last_epoch,
        )
    )


def drop_lease(connection: Connection, trial_id: int) -> None:
    """Remove the lease of a trial, if there is one."""
    connection.execute(delete(LEASES).where(LEASES.c.trial_id == trial_id))


def drop_leases_of_study(connection: Connection, study_id: int) -> None:
    """Remove what a deleted study with the same id left: SQLite gives ids out again."""
    connection.execute(delete(LEASES).where(LEASES.c.study_id == study_id))
