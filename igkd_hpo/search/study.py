"""Create studies in the database, open them again, and read what they say about themselves."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Literal

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from igkd_hpo import __version__
from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.config import study as config
from igkd_hpo.config.fingerprint import difference, fingerprint
from igkd_hpo.config.reading import study_from_json
from igkd_hpo.errors import StudyFileError, UsageError, near_or_all
from igkd_hpo.search.absence import no_studies, preparing
from igkd_hpo.search.counts import Counts, count
from igkd_hpo.search.damage import study_damage, unusable
from igkd_hpo.search.deadline import database_time
from igkd_hpo.search.given_trials import enqueue_missing, given_by
from igkd_hpo.search.lease_table import drop_leases_of_study
from igkd_hpo.search.lock import CREATION
from igkd_hpo.search.optuna_internals import NOT_FOUND, id_of
from igkd_hpo.search.pruner import make_pruner
from igkd_hpo.search.storage import SharedStorage, storage_errors
from igkd_hpo.search.storage_url import mask
from igkd_hpo.search.study_folder import free_folder, name_by_folder, own_folder

Purpose = Literal["search", "confirm", "ladder"]
"""Name what a study's trials are for; the latter two train another study's configurations with fresh seeds."""
ENDED_AFTER = "ended_after"
"""User attribute of a trial that has ended: how many of the study's had before it. No clock of a host says so."""
CALLED: dict[Purpose, str] = {"search": "study", "confirm": "confirmation", "ladder": "ladder"}


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A reading of what may change about a study while it exists, its trials aside.

    Args:
        n_trials: the total of COMPLETE plus PRUNED trials that ends the study.
        stopped: why no new trial begins, if the study was stopped.
        stop_ordered: whether somebody stopped it, and not its failures.
        stop_planned: whether it was stopped as its file says, which is an end as good as the total.
        deadline: when it ends at the latest, by the database's clock, in UTC.
        pins: content of the study's data and teacher, None while unknown.
    """

    n_trials: int
    stopped: str | None
    stop_ordered: bool
    stop_planned: bool
    deadline: datetime | None
    pins: AssetPins | None
    attributes: Mapping[str, Any]


class SearchStudy:
    """An existing study. Every method reads the database anew and raises StorageError when it is away.

    Attributes:
        config: the study file.
        confirms: the study whose configurations this one trains again, by the name that it has now; None of a search.
        purpose: what its trials are for.
        folder: name of the folders of its weights and logs, see `own_folder`.

    Raises:
        KeyError: there is no study of this name.
        UsageError: the study was made by something else.
    """

    def __init__(self, storage: SharedStorage, name: str) -> None:
        self.storage = storage
        self.name = name
        place = f"study {name!r} in {storage.place}"
        with storage_errors(storage.url):
            self.study_id: int = storage.get_study_id_from_name(name)
            attributes = storage.get_study_user_attrs(self.study_id)
            self._fingerprint = attributes.get("fingerprint")
            if self._fingerprint is None:
                raise UsageError(f"{place} was not made by igkd-hpo; choose another name or storage")
            if storage.get_study_directions(self.study_id) != [StudyDirection.MAXIMIZE]:
                raise UsageError(f"{place} does not maximise one value; choose another name")
        self.config = _study_file(attributes, name, place)
        with storage_errors(storage.url):
            self.pins_when_opened = _pins(attributes)
            confirms = attributes.get("confirms")
            self.confirms = None if confirms is None else name_by_folder(storage, confirms)
            self.purpose: Purpose = "search" if confirms is None else attributes.get("purpose", "confirm")
            self.folder = own_folder(storage, attributes, name)
            self.pruner = make_pruner(self.config.pruner, self.config.training.epochs)
            self.optuna_study = optuna.Study(name, storage, pruner=self.pruner)

    def read(self) -> StudyRecord:
        """Read what the study says about itself now."""
        with storage_errors(self.storage.url), self._still_there():
            attributes = self.storage.get_study_user_attrs(self.study_id)
            if attributes.get("fingerprint") != self._fingerprint:  # SQLite gives a deleted study's id to the next one
                raise KeyError(NOT_FOUND)
        if (damage := study_damage(attributes)) is not None:
            raise unusable(f"study {self.name!r} in {self.storage.place}", attributes, damage)
        n_trials, stopped, deadline = attributes["n_trials"], attributes.get("stopped"), attributes.get("deadline")
        return StudyRecord(
            n_trials=n_trials,
            stopped=stopped,
            stop_ordered=bool(stopped and attributes.get("stop_ordered")),
            stop_planned=bool(stopped and attributes.get("stop_planned")),
            deadline=None if deadline is None else datetime.fromtimestamp(deadline, UTC),
            pins=_pins(attributes),
            attributes=attributes,
        )

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by number; they are shared with the cache, so not to be changed."""
        with storage_errors(self.storage.url), self._still_there():
            return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def read_ended(self) -> None:
        """Read the trials that have ended since the last look, which are kept; `trials` reads the others each time."""
        with storage_errors(self.storage.url), self._still_there():
            self.storage.read_ended(self.study_id)

    def counts(self) -> Counts:
        """Count the trials by state."""
        return count(self.trials())

    def stop(self, reason: str, *, now: bool = False) -> None:
        """Let no trial begin until the study is launched again, as somebody ordered; the first reason stays.

        With `now`, release the running trials too: their workers learn it with the next heartbeat.
        """
        with self.transaction():
            if self.read().stopped is None:
                self.storage.set_study_user_attr(self.study_id, "stopped", reason)
                self.storage.set_study_user_attr(self.study_id, "stop_ordered", True)
            if now:
                self.storage.set_study_user_attr(self.study_id, "stopped_now", True)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run one transaction under the study's lock. Raises UsageError when the study was deleted."""
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
                f"study {self.name!r} lost a record in {self.storage.place}; was it deleted or renamed in a "
                "dashboard? `igkd-hpo status` shows what is there"
            ) from error


def check_unchanged(storage: SharedStorage, study: config.Study) -> SearchStudy | None:
    """Return the study of this file's name, None where there is none yet.

    Raises StudyFileError where a file that means something else created it, UsageError where another program did.
    """
    existing = find_study(storage, study.name)
    if existing is not None and (changes := "; ".join(difference(existing.config, study))):
        raise StudyFileError(
            f"study {study.name!r} was created from a file that meant something else: {changes}. "
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
    purpose: Purpose = "confirm",
    timeout: int | None = None,
) -> SearchStudy:
    """Create the study with its control trials, or open it to go on; all of it happens or nothing does.

    Args:
        n_trials: the new total. None: the file's, if that changed since the last launch, else what the study has.
        pins: content of data and teacher on this host; None while unknown.
        confirms: folder of the study whose configurations a new one trains again, for this `purpose`.
        timeout: seconds from now that it has; None: the file's, if that is new or changed, else what the study has.

    Raises:
        StudyFileError: the name is taken by a study that means something else.
        DataError, TeacherError: the content here is not the study's.
    """
    if n_trials is not None and n_trials < 1:
        raise UsageError(f"{n_trials} trials cannot be run; give 1 or more")
    with storage.transaction(CREATION) as connection:
        existing = check_unchanged(storage, study)
        if existing is None:
            link = {} if confirms is None else {"confirms": confirms}
            if confirms is not None and purpose != "confirm":
                link["purpose"] = purpose
            _create(connection, storage, study, n_trials or study.n_trials, link)
            existing = SearchStudy(storage, study.name)
            new_timeout = study.timeout is not None
        else:
            new_timeout = study.timeout != existing.config.timeout
            _resume(existing, study, n_trials)
        if timeout is not None or new_timeout:
            _set_deadline(connection, existing, timeout or study.seconds)
        if pins is not None:
            if (pinned := existing.read().pins) is None:
                for key, value in asdict(pins).items():
                    storage.set_study_user_attr(existing.study_id, key, value)
            else:
                check_pins(study.name, pinned, pins)
                if pinned.teacher_accuracy is None:  # a study of an earlier version
                    storage.set_study_user_attr(existing.study_id, "teacher_accuracy", pins.teacher_accuracy)
        storage.set_study_user_attr(existing.study_id, "launched", datetime.now(UTC).isoformat())
        return SearchStudy(storage, study.name)


def find_study(storage: SharedStorage, name: str) -> SearchStudy | None:
    """Open the study of this name, None where there is none. Raises UsageError: it was made by something else."""
    try:
        return SearchStudy(storage, name)
    except (KeyError, UnicodeEncodeError):  # bytes of a command line that are not UTF-8 name no study
        return None


def open_study(storage: SharedStorage, name: str) -> SearchStudy:
    """Open the study of this name. Raises UsageError that names the near ones."""
    if (study := find_study(storage, name)) is not None:
        return study
    near, work = near_or_all(name, _some_names(storage)), preparing(storage.assets)
    raise UsageError(f"no study {name!r} in {storage.place}{near}{work}; `igkd-hpo status` shows what is there")


def latest_study(storage: SharedStorage) -> str:
    """Name the search that was launched last, another study only where there is nothing else. Raises UsageError."""
    names = _some_names(storage)
    usable: dict[str, str | None] = {}
    for name in names:
        with suppress(UsageError, KeyError):  # another version's, or deleted a moment ago: `status` names it
            usable[name] = SearchStudy(storage, name).confirms
    searches = [name for name, confirmed in usable.items() if confirmed is None]
    return (searches or [*usable] or names)[-1]


def _some_names(storage: SharedStorage) -> list[str]:
    if names := study_names(storage):
        return names
    raise UsageError(f"{mask(storage.url)} holds {no_studies(storage.assets)}")


def study_names(storage: SharedStorage) -> list[str]:
    """Return the names of this project's studies, in the order of their last launches."""
    return [name for name, _ in launches(storage)]


def launches(storage: SharedStorage) -> list[tuple[str, str]]:
    """Return the names of this project's studies with their last launches (ISO 8601, UTC), oldest first."""
    with storage_errors(storage.url):
        ours = [study for study in storage.get_all_studies() if "fingerprint" in study.user_attrs]
    return sorted(((s.study_name, str(s.user_attrs.get("launched"))) for s in ours), key=itemgetter(1))


def next_version(storage: SharedStorage, name: str) -> str:
    """Return the next free name: digits, digits-v2, digits-v3."""
    stem = re.sub(r"-v\d+$", "", name)
    with storage_errors(storage.url):
        taken = {study.study_name for study in storage.get_all_studies()}
    versions = [int(m[1]) for other in taken if (m := re.fullmatch(rf"{re.escape(stem)}-v(\d+)", other))]
    return f"{stem}-v{max([1, *versions]) + 1}"


def unclaimed(trials: list[FrozenTrial], leased: set[int]) -> list[FrozenTrial]:
    """Return the trials that wait for a worker: orphans first, which are RUNNING and not in `leased`, then WAITING."""
    orphans = [t for t in trials if t.state is TrialState.RUNNING and id_of(t) not in leased]
    return [*orphans, *(t for t in trials if t.state is TrialState.WAITING)]


def ended_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the COMPLETE, PRUNED and FAIL trials, in the order of their ends.

    First come those whose place was not written down, as earlier versions and other tools end them, by hosts' clocks.
    """

    def place(trial: FrozenTrial) -> tuple[int, datetime, int]:
        by_clock = trial.datetime_complete or datetime.min  # noqa: DTZ901 - Optuna's are naive
        return trial.user_attrs.get(ENDED_AFTER, -1), by_clock, trial.number

    return sorted((trial for trial in trials if trial.state.is_finished()), key=place)


def ended_since(trials: Sequence[FrozenTrial], before: int) -> list[FrozenTrial]:
    """Return the trials that ended when `before` others had, in the order of their ends."""
    ended = ended_trials(trials)
    placed = [trial for trial in ended if ENDED_AFTER in trial.user_attrs]
    others = ended[: len(ended) - len(placed)]
    earlier = sum(trial.user_attrs[ENDED_AFTER] < before for trial in placed)
    return others[max(0, before - earlier) :] + placed[earlier:]


def _create(
    connection: Connection, storage: SharedStorage, study: config.Study, n_trials: int, link: Mapping[str, str]
) -> None:
    if (no_room := study.without_room(n_trials)) is not None:
        raise UsageError(f"{n_trials} trials leave no room for {no_room}")
    folder = free_folder(storage, study.name)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], study.name)
    drop_leases_of_study(connection, study_id)
    attributes = {
        "folder": folder,
        "study_file": study.model_dump_json(),
        "fingerprint": fingerprint(study),
        "n_trials": n_trials,
        "created_by": f"igkd-hpo {__version__}",
        "late_results": 0,
        "ended_before_launch": 0,
        **link,
    }
    for key, value in attributes.items():
        storage.set_study_user_attr(study_id, key, value)
    enqueue_missing(optuna.Study(study.name, storage), given_by(study), [], room=n_trials)


def _resume(existing: SearchStudy, study: config.Study, n_trials: int | None) -> None:
    storage, study_id = existing.storage, existing.study_id
    if n_trials is not None or study.n_trials != existing.config.n_trials:
        storage.set_study_user_attr(study_id, "n_trials", n_trials or study.n_trials)
    storage.set_study_user_attr(study_id, "folder", existing.folder)  # before the file with the name that it had
    # What is not part of the meaning (paths, max_retries …) follows the file that was launched last.
    storage.set_study_user_attr(study_id, "study_file", study.model_dump_json())
    record, trials = existing.read(), existing.trials()
    if record.stopped is not None:
        storage.set_study_user_attr(study_id, "stopped", None)
        storage.set_study_user_attr(study_id, "stop_ordered", False)
        storage.set_study_user_attr(study_id, "stopped_now", False)
        storage.set_study_user_attr(study_id, "stop_planned", False)
    if existing.confirms is None:
        room = record.n_trials - count(trials).finished
        enqueue_missing(existing.optuna_study, given_by(study), trials, room=room)
    # Failures from before this launch are forgiven: else the study would stop again at once.
    storage.set_study_user_attr(study_id, "ended_before_launch", len(ended_trials(trials)))


def _set_deadline(connection: Connection, study: SearchStudy, seconds: int | None) -> None:
    deadline = None if seconds is None else database_time(connection).timestamp() + seconds
    study.storage.set_study_user_attr(study.study_id, "deadline", deadline)


def _study_file(attributes: Mapping[str, Any], name: str, place: str) -> config.Study:
    """Return the study file in the database, by the name that the study has there: it may have been renamed."""
    if (damage := study_damage(attributes)) is not None:
        raise unusable(place, attributes, damage)
    try:
        document = json.loads(attributes["study_file"])
        return study_from_json(json.dumps(document | {"name": name}), source="its study file")
    except (RecursionError, TypeError, ValueError) as error:
        raise unusable(place, attributes, f"its study file is no JSON ({error})") from error
    except StudyFileError as error:
        first = str(error).splitlines()[-1].strip().removeprefix("its study file: ")
        fault = first.partition(" (known here")[0].partition("; ")[0]  # the rest is advice for who writes a file
        raise unusable(place, attributes, f"in its study file, {fault}") from error


def _pins(attributes: Mapping[str, Any]) -> AssetPins | None:
    dataset, teacher = attributes.get("dataset_sha256"), attributes.get("teacher_sha256")
    if not (dataset and teacher):
        return None
    own_validation = bool(attributes.get("own_validation"))
    return AssetPins(
        dataset_sha256=dataset,
        teacher_sha256=teacher,
        own_validation=own_validation,
        weights_sha256=attributes.get("weights_sha256"),
        shown_sha256=attributes.get("shown_sha256"),
        teacher_accuracy=attributes.get("teacher_accuracy"),
    )
