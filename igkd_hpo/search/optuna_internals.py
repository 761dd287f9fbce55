"""Keep the names of Optuna that are not public in one place, with stand-ins where a version lacks one.

Without them everything works as before, and slower: histories are read Optuna's way, or nothing is cached.
"""

import dis
import re
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeGuard

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

__all__ = ["CachedStorage", "FrozenStudy", "StudyInfo", "models"]  # Optuna's, by their names in this project

if TYPE_CHECKING:
    from optuna.storages import _CachedStorage as CachedStorage
    from optuna.storages._cached_storage import _StudyInfo as StudyInfo
    from optuna.storages._rdb import models
    from optuna.study._frozen import FrozenStudy
else:
    try:
        from optuna.storages._rdb import models
        from optuna.study._frozen import FrozenStudy
    except ImportError:
        models = FrozenStudy = None
    try:
        from optuna.storages import _CachedStorage as CachedStorage
        from optuna.storages._cached_storage import _StudyInfo as StudyInfo
    except ImportError:
        StudyInfo = None

        def _delegate(name: str) -> Callable[..., Any]:
            return lambda self, *args, **kwargs: getattr(self._backend, name)(*args, **kwargs)

        def _begin(self: BaseStorage, backend: RDBStorage) -> None:
            self._backend = backend

        _METHODS = {name: _delegate(name) for name in (*BaseStorage.__abstractmethods__, "remove_session")}
        CachedStorage = type("CachedStorage", (BaseStorage,), {"__init__": _begin, **_METHODS})

NOT_FOUND: str = getattr(models, "NOT_FOUND_MSG", "Record does not exist.")
"""The text of Optuna's KeyError for a study or a trial that is not there."""

ENDED = tuple(state for state in TrialState if state.is_finished())
"""The states of trials that have ended."""

CACHES = StudyInfo is not None
"""True where `CachedStorage` keeps what it has read, in attributes that this project understands."""


def only_ended(states: Container[TrialState] | None) -> TypeGuard[Container[TrialState]]:
    """Tell whether all trials in these states have ended; None are all states."""
    return states is not None and not any(state in states for state in TrialState if state not in ENDED)


_MIGRATIONS = Path(optuna.__file__).parent / "storages" / "_rdb" / "alembic" / "versions"
_REVISION = re.compile(r"""^(down_revision|revision) = (?:None|["']([^"']+)["'])$""", re.MULTILINE)


@cache
def newest_revision() -> str | None:
    """Return the revision of the tables that this Optuna makes; None where its migrations do not tell.

    It is the one that no migration comes after, as they stand in their files. Optuna lets Alembic run all ten of them
    to know it, which takes each process that opens a database a tenth of a second or two.
    """
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in _MIGRATIONS.glob("*.py"):
        for kind, name in _REVISION.findall(file.read_text(encoding="utf-8")):
            found[kind].add(name)
    newest = found["revision"] - found["down_revision"]
    return newest.pop() if len(newest) == 1 else None


_SET_BY_OPTUNA = frozenset(
    {
        *("url", "engine_kwargs", "engine", "scoped_session", "skip_compatibility_check", "_version_manager"),
        *("heartbeat_interval", "grace_period", "heartbeat_stale_trial_callback", "failed_trial_callback"),
    }
)
_STORES = {step.argval for step in dis.get_instructions(RDBStorage.__init__) if step.opname == "STORE_ATTR"}
_SETS_WHAT_IS_KNOWN = _STORES == _SET_BY_OPTUNA
"""True where Optuna's storage consists of the attributes that this project understands."""


class PlainStorage(RDBStorage):
    """Optuna's storage on a database, with the project's own requests written in Optuna's public methods."""

    @classmethod
    def of_made_tables(cls, url: str, engine_kwargs: dict[str, Any]) -> Self:
        """Open tables that are there, without asking which Optuna made them: see `is_of_this_optuna`.

        Optuna asks Alembic for that whenever it opens a database, whose import takes 0.2 s of CPU.
        """
        if not _SETS_WHAT_IS_KNOWN:
            return cls(url, engine_kwargs=engine_kwargs, skip_table_creation=True, skip_compatibility_check=True)
        storage = cls.__new__(cls)
        engine = create_engine(url, **engine_kwargs)
        sessions = scoped_session(sessionmaker(bind=engine))
        vars(storage).update(dict.fromkeys(_SET_BY_OPTUNA))
        vars(storage).update(url=url, engine_kwargs=engine_kwargs, engine=engine, scoped_session=sessions)
        return storage

    def is_of_this_optuna(self) -> bool:
        """Tell whether the tables are those that this Optuna makes."""
        with self.engine.connect() as connection:
            return connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [newest_revision()]

    def get_trial_to_judge(self, trial_id: int) -> FrozenTrial:
        """Return a trial's state, epochs and system attributes, as pruners read them. Raises KeyError for no trial."""
        return self.get_trial(trial_id)

    def get_states(
        self, study_id: int, unfinished: Collection[int], trial_id_greater_than: int
    ) -> dict[int, TrialState]:
        """Return the states of a study's trials by id, of these unfinished and of later ones."""
        states = {id_of(trial): trial.state for trial in self.get_all_trials(study_id, deepcopy=False)}
        return {id_: state for id_, state in states.items() if id_ > trial_id_greater_than or id_ in unfinished}

    def get_trials(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        """Return the trials with these ids."""
        return [self.get_trial(trial_id) for trial_id in trial_ids]

    def get_unfinished_to_compare(self, study_id: int) -> list[FrozenTrial]:
        """Return the trials that have not ended, with what pruners compare of them: system attributes alone."""
        return [trial for trial in self.get_all_trials(study_id, deepcopy=False) if not trial.state.is_finished()]

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Set several user attributes at once, of a trial that has not ended, which the caller has checked."""
        for key, value in attributes.items():
            self.set_trial_user_attr(trial_id, key, value)

    def add_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        """Write the first value for a step, of a trial that has not ended, which the caller has checked."""
        self.set_trial_intermediate_value(trial_id, step, value)


def id_of(trial: FrozenTrial) -> int:
    """Return Optuna's id of the trial, unique in the database."""
    return trial._trial_id


def table_names() -> list[str]:
    """Return the names of Optuna's tables, as far as they are known."""
    return [] if models is None else list(models.BaseModel.metadata.tables)


def forget(storage: CachedStorage) -> None:
    """Empty the cache, and leave the lock, which another thread may hold."""
    if CACHES:
        empty = {name: value for name, value in vars(CachedStorage(storage._backend)).items() if name != "_lock"}
        with storage._lock:
            vars(storage).update(empty)
