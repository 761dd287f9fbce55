"""Keep the table of leases, who holds which trial, beside Optuna's tables and without a foreign key to them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    case,
    delete,
    select,
    update,
)

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

# Statements of each report and each heartbeat, built once: to build one takes as long as to run it on SQLite.
_ON = (LEASES.c.trial_id == bindparam("trial")) & (LEASES.c.study_id == bindparam("study"))
_HELD = _ON & (LEASES.c.attempt == bindparam("held"))
_EPOCH = bindparam("epoch", type_=Integer)
_FURTHEST = case((LEASES.c.last_epoch < _EPOCH, _EPOCH), else_=LEASES.c.last_epoch)
IS_HELD = select(LEASES.c.attempt).where(_HELD)
"""Of the attempt `held` at a `trial` of a `study`: no row where the lease is lost."""
REACH = update(LEASES).where(_HELD).values(last_epoch=_FURTHEST)
BEAT = update(LEASES).where(_HELD).values(last_epoch=_FURTHEST, beat=LEASES.c.beat + 1)
START = (
    update(LEASES)
    .where(_HELD)
    .values(trial_pid=bindparam("pid"), trial_start=bindparam("start"), device=bindparam("on"))
)
_OF_STUDY = select(LEASES).where(LEASES.c.study_id == bindparam("study")).order_by(LEASES.c.trial_id)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's hold on a trial, one row of the table.

    Args:
        trial_id: Optuna's id of the trial, unique in the database.
        attempt: which attempt at the trial this is, from 1.
        process: the worker; only it talks to the database.
        trial_process, device: what trains, and where; None until it has started.
        beat: the heartbeat, which goes up as long as the worker lives.
        first_epoch, last_epoch: finished epochs in the database when the attempt began, and now.
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


@dataclass(frozen=True, kw_only=True)
class Reaped:
    """A lease whose holder was dead or stale, with the state that its trial was put into."""

    number: int
    attempt: int
    worker: str
    host: str
    state: TrialState

    def __str__(self) -> str:
        fate = "waits for another attempt" if self.state is TrialState.WAITING else f"is {self.state.name}"
        return f"worker {self.worker} on {self.host} is gone; trial {self.number} (attempt {self.attempt}) {fate}"


def read_leases(connection: Connection, study_id: int) -> list[Lease]:
    """Return all leases of a study, by trial id."""
    rows = connection.execute(_OF_STUDY, {"study": study_id})
    return [_lease(dict(row)) for row in rows.mappings()]


def _lease(row: dict[str, Any]) -> Lease:
    del row["study_id"]
    identify = partial(ProcessIdentity, host=row.pop("host"), boot_id=row.pop("boot_id"))
    worker = identify(pid=row.pop("worker_pid"), start_time=row.pop("worker_start"))
    pid, start_time = row.pop("trial_pid"), row.pop("trial_start")
    trial = None if pid is None else identify(pid=pid, start_time=start_time)
    return Lease(process=worker, trial_process=trial, **row)


def write_lease(connection: Connection, study_id: int, lease: Lease) -> None:
    """Write a new lease, in place of a row that a deleted study left under the same trial id."""
    drop_lease(connection, lease.trial_id)
    worker = lease.process
    row = {name: value for name, value in vars(lease).items() if name in LEASES.c}
    row |= {"host": worker.host, "boot_id": worker.boot_id}
    row |= {"study_id": study_id, "worker_pid": worker.pid, "worker_start": worker.start_time}
    connection.execute(LEASES.insert().values(row))


def drop_lease(connection: Connection, trial_id: int) -> None:
    """Remove the lease of a trial, if there is one."""
    connection.execute(delete(LEASES).where(LEASES.c.trial_id == trial_id))


def drop_leases_of_study(connection: Connection, study_id: int) -> None:
    """Remove the leases that a deleted study with the same id left: SQLite gives ids out again."""
    connection.execute(delete(LEASES).where(LEASES.c.study_id == study_id))
