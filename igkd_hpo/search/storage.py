"""Open the database, and explain its errors in one line."""

import copy
import logging
import os
import shlex
import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, inspect
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from igkd_hpo.errors import IgkdError, StorageError, UsageError
from igkd_hpo.files import create_file, make_folder
from igkd_hpo.search.absence import no_studies
from igkd_hpo.search.damage import searched_by, spoil_damaged
from igkd_hpo.search.lease_table import LEASES, METADATA
from igkd_hpo.search.lock import begin_snapshot, creation_lock, lock_study
from igkd_hpo.search.optuna_internals import (
    CACHES,
    ENDED,
    CachedStorage,
    PlainStorage,
    StudyInfo,
    forget,
    only_ended,
)
from igkd_hpo.search.storage_url import check_url, mask
from igkd_hpo.settings import Settings, sqlite_url

_SQLITE_BUSY_SECONDS = 60  # 16 launches at once on 2 cores queue for their one writer
_NO_RIGHTS = {"42501", "25006"}  # PostgreSQL's codes: not allowed to this role, or a server that is read-only
_ELSEWHERE = "start in a folder that you may write in, or, if it was named, name another with --storage"
_WHAT_READS = "only use what reads: status, best, export, report, show, dashboard"
_OTHERS_MAKE_TABLES = 2  # tries that may fail: two were enough each time that this was tried with 4 processes
_POSTGRESQL_CONNECT = {  # a database that is away is noticed in seconds, not after TCP's quarter of an hour
    "connect_timeout": 5,  # seconds for each address of the host
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
    "application_name": "igkd-hpo",
    "client_encoding": "utf8",  # a database without an encoding (SQL_ASCII) would give bytes for every text
}
_log = logging.getLogger(__name__)


class SharedStorage(CachedStorage):
    """Optuna's cached storage, whose writes can join a transaction of ours."""

    _backend: PlainStorage

    def __init__(self, backend: PlainStorage, url: URL) -> None:
        super().__init__(backend)
        self.url = url
        self.variable = ""  # the environment variable that the URL is from
        self.assets: Path | None = None  # the folder where studies of this host have theirs
        self.engine: Engine = backend.engine  # Optuna's own: 2 connections at most
        self.get_trial_to_judge = backend.get_trial_to_judge  # these know nothing of the cache
        self.set_trial_user_attrs = backend.set_trial_user_attrs
        self.add_intermediate_value = backend.add_intermediate_value
        self._searched: dict[int, frozenset[str] | None] = {}  # names by study; None for another tool's
        self._in_order: dict[tuple[int, tuple[TrialState, ...]], list[FrozenTrial]] = {}  # of a study, in these states

    @property
    def place(self) -> str:
        """Name the database for people: its URL without passwords, and the variable that it is from."""
        return mask(self.url) + (f" (from {self.variable})" if self.variable else "")

    @contextmanager
    def transaction(self, study_id: int) -> Iterator[Connection]:
        """Run one transaction under the study's lock: Optuna's reads and writes in this thread, and ours.

        Optuna commits after each small write; inside, such a commit is the release of a savepoint, so that what belongs
        together is in the database as a whole or not at all, however the process ends. Raises StorageError where the
        database is away or the lock was not free in time, with nothing written.
        """
        with storage_errors(self.url):
            try:
                with self.engine.begin() as connection:
                    lock_study(connection, study_id)
                    with self._joined(connection):
                        yield connection
            except BaseException:  # after a rollback the cache may hold trials that never came to be
                forget(self)
                self._in_order.clear()
                self._searched.clear()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read the database as it stands at one moment, Optuna's reads in this thread included; nobody has to wait.

        In a transaction, or in another snapshot, that one goes on. Raises StorageError.
        """
        joined = self._backend.scoped_session.get_bind()
        if isinstance(joined, Connection):
            yield joined
            return
        with self.reading() as connection:
            begin_snapshot(connection)
            with self._joined(connection):
                yield connection

    @contextmanager
    def _joined(self, connection: Connection) -> Iterator[None]:
        sessions = self._backend.scoped_session
        sessions.remove()
        sessions.registry.set(Session(bind=connection, join_transaction_mode="create_savepoint"))
        try:
            yield
        finally:
            sessions.remove()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection to read from, without waiting for anybody. Raises StorageError."""
        with storage_errors(self.url), self.engine.connect() as connection:
            yield connection

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create the study as Optuna does, without its message on standard error."""
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            return super().create_new_study(directions, study_name)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def delete_study(self, study_id: int) -> None:
        """Delete the study as Optuna does, and what is kept of it: SQLite gives its id out again."""
        super().delete_study(study_id)
        self._in_order.clear()
        self._searched.pop(study_id, None)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name that the study has now: it may have been renamed since it was read."""
        return self._backend.get_study_name_from_id(study_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return trials as Optuna does; leave the others unread when asked for ended ones, as pruners do each epoch.

        32 trials that run, with up to 99 epochs each, took 60 ms of CPU to read, and 5,000 took 0.8 ms to sort.
        """
        if not CACHES or not only_ended(states):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._lock:
            study = self._studies.setdefault(study_id, StudyInfo())
            found = self._backend.get_states(study_id, study.unfinished_trial_ids, study.last_finished_trial_id)
            if ended := [trial_id for trial_id, state in found.items() if state.is_finished()]:
                self._add_trials_to_cache(study_id, self._backend.get_trials(ended))
                # As Optuna keeps account of what it has read, so that neither of us reads a trial again.
                study.unfinished_trial_ids.update(found.keys() - ended)
                study.unfinished_trial_ids.difference_update(ended)
                study.last_finished_trial_id = max(study.last_finished_trial_id, *ended)
            wanted = tuple(state for state in TrialState if state in states)
            trials = self._in_order.get((study_id, wanted))
            if trials is None:  # samplers and pruners rely on the order, which is almost the cache's
                trials = sorted((t for t in study.trials.values() if t.state in states), key=attrgetter("number"))
                self._in_order[study_id, wanted] = trials
        return copy.deepcopy(trials) if deepcopy else list(trials)

    def read_ended(self, study_id: int) -> None:
        """Read the trials that have ended since the last look, and keep them; no trial that runs is read for it."""
        if not CACHES:
            return
        with self._lock:
            begun = study_id in self._studies and self._studies[study_id].last_finished_trial_id != -1
        self.get_all_trials(study_id, deepcopy=False, states=ENDED if begun else None)  # all at once is faster read

    def get_trials_to_compare(self, study_id: int, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return trials by number, in these states; of those that have not ended the system attributes alone.

        At a rung successive halving compares all trials by these. 32 that run, with up to 99 epochs each, took 25 ms to
        read as a whole.
        """
        if not CACHES or only_ended(states):
            return self.get_all_trials(study_id, deepcopy=False, states=states)
        unfinished = self._backend.get_unfinished_to_compare(study_id)
        self._spoil_damaged(study_id, unfinished)
        ended = self.get_all_trials(study_id, deepcopy=False, states=ENDED)
        by_number = {trial.number: trial for trial in (*unfinished, *ended)}  # one may have ended in between
        return [trial for _, trial in sorted(by_number.items()) if states is None or trial.state in states]

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        self._spoil_damaged(study_id, trials)
        super()._add_trials_to_cache(study_id, trials)
        if any(trial.state.is_finished() for trial in trials):
            self._in_order.clear()

    def _spoil_damaged(self, study_id: int, trials: list[FrozenTrial]) -> None:
        if study_id not in self._searched:
            self._searched[study_id] = searched_by(self._backend.get_study_user_attrs(study_id))
        if (searched := self._searched[study_id]) is not None:
            for trial in trials:
                spoil_damaged(trial, searched)


def open_storage_here(settings: Settings, *, create: bool) -> SharedStorage:
    """Open the database of these settings as `open_storage` does; an error names the variable that the URL is from."""
    try:
        storage = open_storage(settings.storage_url, create=create)
    except IgkdError as error:
        if settings.storage_from:
            raise type(error)(f"{error} (the storage is that of {settings.storage_from})") from error
        raise
    storage.variable, storage.assets = settings.storage_from, settings.paths.assets
    return storage


def open_storage(url: str, *, create: bool) -> SharedStorage:
    """Open the database, and with `create` make its tables where they are missing.

    Raises UsageError for a wrong URL, with `create` a file that may not be written, without it a database without
    tables of ours; and StorageError.
    """
    checked = check_url(url)
    if checked.get_backend_name() == "sqlite":
        _check_sqlite_file(checked, create=create)
    with storage_errors(checked):
        if not _holds_tables(checked):
            if not create:
                raise UsageError(f"{mask(checked)} holds {no_studies(None)}")
            with bare_connection(checked) as connection, creation_lock(connection):
                if not _holds_tables(checked):  # another process may have made them meanwhile
                    return SharedStorage(_make_tables(checked), checked)
        return SharedStorage(_open_backend(checked, create=False), checked)


@contextmanager
def bare_connection(url: URL) -> Iterator[Connection]:
    """Connect to the database of a checked URL, whether or not it holds tables. Raises StorageError.

    SQLite makes a file where there is none; look first.
    """
    engine = create_engine(url, **_engine_options(url))
    try:
        with storage_errors(url), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def has_tables(connection: Connection) -> bool:
    """Tell whether all tables are there: ours is the last one that is made."""
    return inspect(connection).has_table(LEASES.name)


def _holds_tables(url: URL) -> bool:
    with bare_connection(url) as connection:
        return has_tables(connection)


@contextmanager
def storage_errors(url: URL) -> Iterator[None]:
    """Raise whatever SQLAlchemy and Optuna raise about the database as a StorageError of one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(_explain(url, error)) from error


def _check_sqlite_file(url: URL, *, create: bool) -> None:
    path = Path(url.database or "")
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):  # it is to be made, or is not there
        pass
    except OSError as error:  # the name is too long, or a folder may not be entered
        raise StorageError(f"cannot look at {path}: {error.strerror}; name another with --storage") from error
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it: {sqlite_url(path / 'igkd_hpo.db')}")
    if not create:
        if not path.exists():
            raise UsageError(f"no database {path}; igkd-hpo launch makes one, or name another with --storage")
        return
    try:
        make_folder(path.parent)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path.parent}: {error.strerror}; {_ELSEWHERE}") from error
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UsageError(f"cannot write {path}: it or its folder is read-only; {_ELSEWHERE}")
    create_file(path)


def _engine_options(url: URL) -> dict[str, Any]:
    pool = {"pool_size": 2, "max_overflow": 0}
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            return {"creator": partial(_connect_to_read, path), "poolclass": NullPool}
        return {"connect_args": {"timeout": _SQLITE_BUSY_SECONDS}, **pool}
    connect = {key: value for key, value in _POSTGRESQL_CONNECT.items() if key not in url.query}
    return {"connect_args": connect, "pool_pre_ping": True, "isolation_level": "READ COMMITTED", **pool}


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect to a file where nothing can be written, which alone is too little for the log that SQLite reads with.

    While somebody who may write has the file open, or died with it open, there is a log, and its index beside it can be
    read. Without a log the file alone is the database, and does not change: it is read without index and locks. Each
    connection looks anew.
    """
    log = path.with_name(f"{path.name}-wal")
    unchanging = "" if log.exists() and log.stat().st_size else "&immutable=1"
    name = f"file:{quote(str(path))}?mode=ro{unchanging}"
    return sqlite3.connect(name, uri=True, timeout=_SQLITE_BUSY_SECONDS, check_same_thread=False)


def _open_backend(url: URL, *, create: bool) -> PlainStorage:
    text = url.render_as_string(hide_password=False)
    storage_class = PlainStorage
    with suppress(ImportError, AttributeError):  # a version of Optuna whose tables have other names
        from igkd_hpo.search.history import HistoryStorage

        storage_class = HistoryStorage
    options = _engine_options(url)
    try:
        if not create:
            backend = storage_class.of_made_tables(text, options)
            if backend.is_of_this_optuna():
                return backend
            backend.engine.dispose()
        # Optuna says what is wrong, or that nothing is. It puts the URL through str.format.
        template = text.replace("{", "{{").replace("}", "}}")
        backend = storage_class(template, engine_kwargs=options, skip_table_creation=not create)
    except RuntimeError as error:
        reason, _, remedy = _one_line(error).partition(" Please ")  # which has a variable of somebody's shell in it
        advice = "update Optuna here (`pip install -U optuna`)"
        if "upgrade" in remedy.partition("pip")[0]:
            advice = f"make a copy, then run `optuna storage upgrade --storage {shlex.quote(mask(url))}`"
        raise StorageError(f"{mask(url)} was made by another version of Optuna: {reason} {advice}") from error
    if create and url.get_backend_name() == "sqlite":
        with backend.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # readers do not wait for writers; stays in the file
    return backend


def _make_tables(url: URL, retries: int = _OTHERS_MAKE_TABLES) -> PlainStorage:
    """Make Optuna's tables, then ours.

    Our lock keeps our own processes apart. Another Optuna tool that opens the empty database at the same moment, a
    stock optuna-dashboard say, makes the same tables without a lock; whoever comes second fails, and finds them there
    on the next try.
    """
    try:
        backend = _open_backend(url, create=True)
        METADATA.create_all(backend.engine)
    except (IntegrityError, OperationalError, ProgrammingError, StorageInternalError) as error:
        if retries == 0:
            raise
        _log.debug("making the tables of %s failed once: %s", mask(url), error)
        return _make_tables(url, retries - 1)
    return backend


def _explain(url: URL, error: Exception) -> str:
    cause: BaseException = error
    while (deeper := getattr(cause, "orig", None) or cause.__cause__) is not None:
        cause = deeper
    reason = _one_line(cause)
    if url.password:
        reason = reason.replace(str(url.password), "***")
    remedy = "check --storage, that the server runs, and that it can be reached from here"
    if url.get_backend_name() == "sqlite":
        remedy = "check that the file is a SQLite database on a local disk with room left"
        if "readonly" in reason:
            remedy = f"the file or its folder is read-only for this user, who can {_WHAT_READS}"
        elif not os.access(Path(url.database or "").parent, os.W_OK):
            remedy = "its folder is read-only for this user; copy the folder, and name the copy with --storage"
    elif getattr(cause, "sqlstate", "") in _NO_RIGHTS:
        remedy = f"this role can {_WHAT_READS}; connect with one that may write"
    elif "authentication failed" in reason or "no password supplied" in reason:
        remedy = "check user and password in --storage, PGPASSWORD or ~/.pgpass"
    elif f'role "{url.username}" does not exist' in reason:
        remedy = "name a user of the server in --storage, or make this one with createuser"
    elif f'database "{url.database}" does not exist' in reason:
        remedy = f"make it with `createdb {shlex.quote(str(url.database))}` on the server, or name another"
    return f"the database {mask(url)} cannot be used: {reason}; {remedy}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
