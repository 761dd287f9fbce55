"""Lock studies and the making of tables between processes; a process that dies or is cut off lets go of its locks."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout
from sqlalchemy import Connection, text

from igkd_hpo.errors import StorageError

CREATION = 0
"""Key of the lock for making tables and studies, in place of a study's id."""

_NAMESPACE = 0x16BD  # of our advisory locks, so that other users of the database do not meet them by chance
_LIMIT = "30s"  # longest wait for a lock, and longest pause of a process that holds one (a suspended laptop)
# Longest wait for somebody else who makes tables or studies: 16 launches at the same instant on 2 cores, of which the
# first made the tables, had waited for more than 30 s.
_CREATION_SECONDS = 300

# One statement instead of two, in every step of the protocol; the lock is asked for on the row that the settings give.
_SET_AND_LOCK = text(
    "WITH settings AS MATERIALIZED (SELECT set_config('lock_timeout', :wait, true),"
    " set_config('idle_in_transaction_session_timeout', :pause, true))"
    " SELECT pg_advisory_xact_lock(:namespace, :key) FROM settings"
)


def lock_study(connection: Connection, study_id: int) -> None:
    """Begin the only transaction on this study, on a fresh connection; its end is the unlocking.

    Raises:
        sqlalchemy.exc.OperationalError: the lock was not free within 30 seconds, or 5 minutes for CREATION.
    """
    if connection.dialect.name == "sqlite":
        # SQLite has one writer at a time. IMMEDIATE takes its place at once and waits for it; a deferred transaction
        # fails without waiting when it turns from reading to writing after somebody else wrote.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        _lock_postgresql(connection, study_id)


def begin_snapshot(connection: Connection) -> None:
    """Begin a transaction on a fresh connection in which all reads see the same moment."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")  # the driver begins none for a SELECT
    else:
        connection.execution_options(isolation_level="REPEATABLE READ").begin()


@contextmanager
def creation_lock(connection: Connection) -> Iterator[None]:
    """Hold a lock by a fresh connection while tables are made, which Optuna does on connections of its own.

    Raises StorageError or sqlalchemy.exc.OperationalError: not free within 5 minutes, or the database is away.
    """
    if connection.dialect.name == "sqlite":
        path = connection.engine.url.database
        lock = FileLock(f"{path}.lock")
        try:
            with lock.acquire(timeout=_CREATION_SECONDS):
                yield
        except Timeout:
            raise StorageError(
                f"another process has been making {path} for {_CREATION_SECONDS} s; end it and try again"
            ) from None
        return
    with connection.begin():
        _lock_postgresql(connection, CREATION)
        # Making the tables takes longer than a step of the protocol, and this connection waits meanwhile.
        connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', '120s', true)"))
        yield


def _lock_postgresql(connection: Connection, key: int) -> None:
    wait = f"{_CREATION_SECONDS}s" if key == CREATION else _LIMIT
    connection.execute(_SET_AND_LOCK, {"wait": wait, "pause": _LIMIT, "namespace": _NAMESPACE, "key": key})
