"""Create studies in the database, open them again, and read what they say about themselves."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from igkd_hpo import __version__
from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.config import study as config
from igkd_hpo.config.controls import ControlName, make_control
from igkd_hpo.config.fingerprint import difference, fingerprint
from igkd_hpo.config.reading import study_from_json
from igkd_hpo.errors import StudyFileError, UsageError, near_or_all
from igkd_hpo.search.lease_table import drop_leases_of_study
from igkd_hpo.search.lock import CREATION
from igkd_hpo.search.optuna_internals import NOT_FOUND, id_of
from igkd_hpo.search.pruner import make_pruner
from igkd_hpo.search.storage import SharedStorage, mask, storage_errors

EXCESS = "surplus"
"""The reason of a trial that waited when enough others had finished."""

MOST_INFEASIBLE = 200
"""Configurations in a row that are beyond a limit, before a study is given up; each costs half a second."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Trials by state; a PRUNED one that is beyond a limit was not trained, and is `infeasible` instead."""

    complete: int
    pruned: int
    infeasible: int = 0
    fail: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        """What counts towards `n_trials`: what was trained."""
        return self.complete + self.pruned

    def by_word(self) -> dict[str, int]:
        """Return the trials of each state, by the word for it."""
        return {
            "complete": self.complete,
            "pruned": self.pruned,
            "beyond a limit": self.infeasible,
            "failed": self.fail,
            "running": self.running,
            "waiting": self.waiting,
        }

    def in_words(self) -> str:
        """Count the trials of each state in words: 17 complete, 6 pruned, 1 failed."""
        return ", ".join(f"{number} {word}" for word, number in self.by_word().items() if number) or "none yet"


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What may change about a study while it exists, its trials aside, as it was when it was read.

    Args:
        n_trials: the total of COMPLETE plus PRUNED trials that ends the study.
        stopped: why no new trial begins, if the study was stopped.
        pins: what the study's data and teacher are, once they are known.
        attributes: all user attributes.
    """

    n_trials: int
    stopped: str | None
    pins: AssetPins | None
    attributes: Mapping[str, Any]


class SearchStudy:
    """An existing study. Every method reads the database anew and raises StorageError when it is away.

    Attributes:
        config: the study file.
        confirms: the study that this one confirms, if it is a confirmation.

    Args:
        storage: the open database.
        name: of a study that this project made.

    Raises:
        UsageError: the study was made by something else.
    """

    def __init__(self, storage: SharedStorage, name: str) -> None:
        self.storage = storage
        self.name = name
        with storage_errors(storage.url):
            self.study_id: int = storage.get_study_id_from_name(name)
            attributes = storage.get_study_user_attrs(self.study_id)
            if "fingerprint" not in attributes:
                raise UsageError(
                    f"study {name!r} in {mask(storage.url)} was not made by igkd-hpo; choose another name or storage"
                )
            if storage.get_study_directions(self.study_id) != [StudyDirection.MAXIMIZE]:
                raise UsageError(
                    f"study {name!r} in {mask(storage.url)} does not maximise one value; choose another name"
                )
            self.config = study_from_json(attributes["study_file"], source=f"study {name!r} in the database")
            self.pins_when_opened = _pins(attributes)
            self.confirms: str | None = attributes.get("confirms")
            self.pruner = make_pruner(self.config.pruner, self.config.training.epochs)
            self.optuna_study = optuna.Study(name, storage, pruner=self.pruner)

    def read(self) -> StudyRecord:
        """What the study says about itself now."""
        with storage_errors(self.storage.url), self._still_there():
            attributes = self.storage.get_study_user_attrs(self.study_id)
        return StudyRecord(
            n_trials=int(attributes["n_trials"]),
            stopped=attributes.get("stopped"),
            pins=_pins(attributes),
            attributes=attributes,
        )

    def trials(self) -> list[FrozenTrial]:
        """All trials by number; shared with the cache, so not to be changed."""
        with storage_errors(self.storage.url), self._still_there():
            return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def counts(self) -> Counts:
        """Trials by state."""
        return count(self.trials())

    def stop(self, reason: str, *, now: bool = False) -> None:
        """No trial begins from now on, until the study is launched again.

        Args:
            reason: for people; the first one stays.
            now: the running trials end too, and wait for another attempt: their workers learn it with the next beat.
        """
        with self.transaction():
            if self.read().stopped is None:
                self.storage.set_study_user_attr(self.study_id, "stopped", reason)
            if now:
                self.storage.set_study_user_attr(self.study_id, "stopped_now", True)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction under the study's lock. Raises UsageError when the study was deleted."""
        with self.storage.transaction(self.study_id) as connection, self._still_there():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Let all reads in this thread see the same moment. Raises UsageError when the study was deleted."""
        with self.storage.snapshot() as connection, self._still_there():
            yield connection

    @contextmanager
    def _still_there(self) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            if error.args != (NOT_FOUND,):
                raise
            raise UsageError(
                f"study {self.name!r} lost a record in {mask(self.storage.url)}; was it deleted or renamed in a "
                "dashboard? `igkd-hpo status` shows what is there"
            ) from error


def count(trials: list[FrozenTrial]) -> Counts:
    """Trials by state."""
    states = Counter(trial.state for trial in trials)
    infeasible = sum(trial.state is TrialState.PRUNED and is_infeasible(trial) for trial in trials)
    return Counts(
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED] - infeasible,
        infeasible=infeasible,
        fail=states[TrialState.FAIL],
        running=states[TrialState.RUNNING],
        waiting=states[TrialState.WAITING],
    )


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether the trial was not trained because its student is beyond a limit."""
    return any(over > 0 for over in trial.constraints.values())


def check_unchanged(storage: SharedStorage, study: config.Study) -> SearchStudy | None:
    """The study of this name, None where there is none yet.

    Raises:
        StudyFileError: it was created from a file that means something else.
        UsageError: it was made by something else.
    """
    with storage_errors(storage.url):
        try:
            storage.get_study_id_from_name(study.name)
        except KeyError:
            return None
    existing = SearchStudy(storage, study.name)
    if changes := difference(existing.config, study):
        listed = "; ".join(changes)
        raise StudyFileError(
            f"study {study.name!r} was created from a file that meant something else: {listed}. "
            f"Give the file a new name, or run it as {next_version(storage, study.name)} with --new-version"
        )
    return existing


def create_or_open(
    storage: SharedStorage,
    study: config.Study,
    *,
    n_trials: int | None,
    pins: AssetPins | None,
    confirms: str | None = None,
) -> SearchStudy:
    """Make the study with its control trials, or open it to go on; all of it happens or nothing does.

    Args:
        n_trials: the new total. None: the file's, if that changed since the last launch, else what the study has.
        pins: content of data and teacher on this host; None while unknown.
        confirms: name of the study whose confirmation a new one is.

    Raises:
        StudyFileError: the name is taken by a study that means something else.
        DataError, TeacherError: the content here is not the study's.
    """
    if n_trials is not None and n_trials < 1:
        raise UsageError(f"{n_trials} trials cannot be run; give 1 or more")
    with storage.transaction(CREATION) as connection:
        existing = check_unchanged(storage, study)
        if existing is None:
            _create(connection, storage, study, n_trials or study.n_trials, confirms)
            existing = SearchStudy(storage, study.name)
        else:
            _resume(existing, study, n_trials)
        if pins is not None:
            _pin(existing, pins)
        storage.set_study_user_attr(existing.study_id, "launched", datetime.now(UTC).isoformat())
        return SearchStudy(storage, study.name)


def open_study(storage: SharedStorage, name: str) -> SearchStudy:
    """The study of this name. Raises UsageError that names the near ones."""
    with storage_errors(storage.url):
        try:
            return SearchStudy(storage, name)
        except KeyError:
            pass
    known = study_names(storage)
    if not known:
        raise UsageError(f"{mask(storage.url)} holds no studies yet; igkd-hpo launch makes one when its maps are there")
    raise UsageError(
        f"no study {name!r} in {mask(storage.url)}{near_or_all(name, known)}; `igkd-hpo status` shows what is there"
    )


def study_names(storage: SharedStorage) -> list[str]:
    """The studies of this project, in the order of their last launches."""
    return [name for name, _ in launches(storage)]


def launches(storage: SharedStorage) -> list[tuple[str, str]]:
    """The same with the times (ISO 8601, UTC) of those launches."""
    with storage_errors(storage.url):
        ours = [study for study in storage.get_all_studies() if "fingerprint" in study.user_attrs]
    found = [(study.study_name, str(study.user_attrs["launched"])) for study in ours]
    return sorted(found, key=lambda launch: launch[1])


def latest_study(storage: SharedStorage) -> str:
    """The study that was launched last, a confirmation only where there is nothing else. Raises UsageError."""
    names = study_names(storage)
    if not names:
        raise UsageError(f"{mask(storage.url)} holds no studies yet; igkd-hpo launch makes one when its maps are there")
    searches = [name for name in names if SearchStudy(storage, name).confirms is None]
    return (searches or names)[-1]


def next_version(storage: SharedStorage, name: str) -> str:
    """The next free name: digits, digits-v2, digits-v3."""
    stem = re.sub(r"-v\d+$", "", name)
    with storage_errors(storage.url):
        taken = {study.study_name for study in storage.get_all_studies()}
    versions = [int(m[1]) for other in taken if (m := re.fullmatch(rf"{re.escape(stem)}-v(\d+)", other))]
    return f"{stem}-v{max([1, *versions]) + 1}"


def unclaimed(trials: list[FrozenTrial], leased: set[int]) -> list[FrozenTrial]:
    """The trials that wait for a worker: orphans first, RUNNING without a lease, then WAITING ones.

    Args:
        leased: Optuna's ids of the trials that have a lease.
    """
    orphans = [t for t in trials if t.state is TrialState.RUNNING and id_of(t) not in leased]
    return [*orphans, *(t for t in trials if t.state is TrialState.WAITING)]


def ended_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """COMPLETE, PRUNED and FAIL trials, in the order of their ends."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    return sorted(ended, key=lambda trial: (trial.datetime_complete or datetime.min, trial.number))  # noqa: DTZ901 - Optuna's are naive


def why_stopping(trials: list[FrozenTrial], ended_before_launch: int, max_failures: int) -> str | None:
    """What to stop a study with when all that it tried lately failed, or was beyond a limit; else None.

    Lately: the last `max_failures` trials to end since the launch, untrained ones left out; the last 200 of all.
    """
    ended = ended_trials(trials)[ended_before_launch:]
    last = [trial for trial in ended if not is_infeasible(trial)][-max_failures:]
    if len(last) == max_failures and all(trial.state is TrialState.FAIL for trial in last):
        newest = last[-1]
        reason = newest.user_attrs.get("reason", "no reason")
        return f"the last {max_failures} trials all failed; trial {newest.number}: {reason}"
    if len(ended) >= MOST_INFEASIBLE and all(map(is_infeasible, ended[-MOST_INFEASIBLE:])):
        newest = ended[-1]
        return (
            f"the last {MOST_INFEASIBLE} configurations were all beyond the limits; trial {newest.number}: "
            f"{newest.user_attrs['reason']}; raise the limits, or search smaller students, under a new name"
        )
    return None


def _create(
    connection: Connection, storage: SharedStorage, study: config.Study, n_trials: int, confirms: str | None
) -> None:
    if n_trials < len(study.controls):
        raise UsageError(
            f"{n_trials} trials leave no room for {len(study.controls)} controls; give more, or drop controls"
        )
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], study.name)
    drop_leases_of_study(connection, study_id)
    attributes = {
        "study_file": study.model_dump_json(),
        "fingerprint": fingerprint(study),
        "n_trials": n_trials,
        "created_by": f"igkd-hpo {__version__}",
        "late_results": 0,
        "ended_before_launch": 0,
    }
    if confirms is not None:
        attributes["confirms"] = confirms
    for key, value in attributes.items():
        storage.set_study_user_attr(study_id, key, value)
    _enqueue_controls(optuna.Study(study.name, storage), study, study.controls)


def _enqueue_controls(created: optuna.Study, study: config.Study, names: Iterable[ControlName]) -> None:
    for name in names:
        control = make_control(name, study.hyperparameters)
        created.enqueue_trial(control.params, user_attrs={"control": name, "hyperparameters": control.hyperparameters})


def _resume(existing: SearchStudy, study: config.Study, n_trials: int | None) -> None:
    storage, study_id = existing.storage, existing.study_id
    if n_trials is None and study.n_trials != existing.config.n_trials:
        n_trials = study.n_trials
    if n_trials is not None:
        storage.set_study_user_attr(study_id, "n_trials", n_trials)
    # What is not part of the meaning (paths, max_retries …) follows the file that was launched last.
    storage.set_study_user_attr(study_id, "study_file", study.model_dump_json())
    record = existing.read()
    if record.stopped is not None:
        storage.set_study_user_attr(study_id, "stopped", None)
        storage.set_study_user_attr(study_id, "stopped_now", False)
    trials = existing.trials()
    if existing.confirms is None:
        # A total too small for all controls ended those that still waited; a larger one has room for them.
        lost = [name for name in study.controls if _ended_as_surplus(trials, name)]
        room = max(0, record.n_trials - count(trials).finished)
        _enqueue_controls(existing.optuna_study, study, lost[:room])
    # Failures from before this launch are forgiven: else the study would stop again at once.
    storage.set_study_user_attr(study_id, "ended_before_launch", len(ended_trials(trials)))


def _ended_as_surplus(trials: list[FrozenTrial], control: str) -> bool:
    """Whether every trial of this control was ended because enough others had finished."""
    its = [trial for trial in trials if trial.user_attrs.get("control") == control]
    return bool(its) and all(
        trial.state is TrialState.FAIL and trial.user_attrs.get("reason") == EXCESS for trial in its
    )


def _pins(attributes: dict[str, Any]) -> AssetPins | None:
    if "teacher_sha256" not in attributes:
        return None
    return AssetPins(dataset_sha256=attributes["dataset_sha256"], teacher_sha256=attributes["teacher_sha256"])


def _pin(existing: SearchStudy, pins: AssetPins) -> None:
    pinned = existing.read().pins
    if pinned is None:
        existing.storage.set_study_user_attr(existing.study_id, "dataset_sha256", pins.dataset_sha256)
        existing.storage.set_study_user_attr(existing.study_id, "teacher_sha256", pins.teacher_sha256)
        return
    check_pins(existing.name, pinned, pins)
