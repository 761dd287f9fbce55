"""Read what every study in a database is doing, without disturbing anybody."""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.cost import recorded_cost
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.errors import UsageError
from igkd_hpo.search.counts import Counts, count
from igkd_hpo.search.deadline import database_time
from igkd_hpo.search.identity import is_dead
from igkd_hpo.search.lease_table import Lease, read_leases
from igkd_hpo.search.optuna_internals import id_of
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.strata import StratumStatus, strata_status
from igkd_hpo.search.study import SearchStudy, ended_trials, study_names

_RECENT = 50  # ended trials whose mean duration tells how long the next ones take


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that a worker holds.

    Args:
        trial, attempt: their numbers, from 0 and from 1.
        epoch: finished epochs, of `epochs`.
        validation_accuracy: after that epoch, a fraction; None before the first.
        validation_accuracies: of all epochs so far.
        device: None until its process has started.
        beat: the heartbeat, which goes up as long as the worker lives.
        lost: its worker is dead, and another one will take the trial over; None where that cannot be known from here.
    """

    trial: int
    attempt: int
    epoch: int
    epochs: int
    validation_accuracy: float | None
    validation_accuracies: tuple[float, ...]
    control: str | None
    worker: str
    host: str
    device: str | None
    beat: int
    lost: bool | None


@dataclass(frozen=True, kw_only=True)
class ControlStatus:
    """A control trial; `validation_accuracy` is a fraction, None unless it is COMPLETE."""

    control: str
    trial: int
    validation_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class PrunedTrial:
    """A pruned trial, with the accuracy and the bar it missed in words."""

    trial: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """A study at a glance; accuracies are fractions.

    Args:
        n_trials: the total of COMPLETE plus PRUNED trials that ends it.
        confirms: the study whose confirmation it is, if it is one.
        best_accuracy: of the COMPLETE trials, in the study's `metric`, as all accuracies are.
        best_control: the control's name, if the best is one.
        best_cost: of the best student to store and to run, None what was not recorded.
        epochs: of a trial that is not pruned.
        seconds_left: as the function `seconds_left` estimates them, and no more than until the deadline.
        finished: nothing is left to run.
        stopped: why no new trial begins, if it was stopped before its end.
        strata: those of the study, the smallest students first; none without.
        stop_planned: it was stopped as its file says, by its time.
        deadline: when it ends at the latest, ISO 8601 in UTC, by the database's clock; None without a time.
        last_failure: why the last FAIL failed.
        unusable: why this version cannot read the study, and the rest of this says nothing; None where it can.
    """

    name: str
    confirms: str | None = None
    n_trials: int
    counts: Counts
    best_accuracy: float | None = None
    best_trial: int | None = None
    best_control: str | None = None
    best_cost: dict[str, Any] | None = None
    controls: tuple[ControlStatus, ...] = ()
    last_pruned: PrunedTrial | None = None
    epochs: int
    running: tuple[RunningTrial, ...] = ()
    seconds_left: float | None = None
    finished: bool = False
    stopped: str | None = None
    last_failure: str | None = None
    unusable: str | None = None
    stop_planned: bool = False
    deadline: str | None = None
    metric: Metric = "accuracy"
    strata: tuple[StratumStatus, ...] = ()


def status(storage: SharedStorage, names: Collection[str] = ()) -> list[StudyStatus]:
    """Return studies of this project, the last launched last, each before its confirmation. Raises StorageError.

    Args:
        names: of those to return, with their confirmations; all where there is none.
    """
    with storage.snapshot():
        studies = [_status_of(storage, name) for name in study_names(storage)]
    launched = {study.name: place for place, study in enumerate(studies)}

    def place(study: StudyStatus) -> tuple[int, bool]:
        return launched.get(study.confirms or study.name, launched[study.name]), study.confirms is not None

    wanted = [study for study in studies if not names or {study.name, study.confirms} & set(names)]
    return sorted(wanted, key=place)


def _status_of(storage: SharedStorage, name: str) -> StudyStatus:
    try:
        return study_status(SearchStudy(storage, name))
    except UsageError as error:  # of another version, or damaged: the others are shown all the same
        why = str(error)
    return StudyStatus(name=name, n_trials=0, counts=count([]), epochs=0, unusable=why)


def study_status(study: SearchStudy) -> StudyStatus:
    """Return a study at a glance. Raises StorageError."""
    with study.snapshot() as connection:
        record = study.read()
        until = math.inf
        if record.deadline is not None:
            until = max(0.0, (record.deadline - database_time(connection)).total_seconds())
        leases = read_leases(connection, study.study_id)
        trials = study.trials()
    counts = count(trials)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
    # A dashboard can end a trial that is held, or delete it.
    unfinished = {id_of(trial): trial for trial in trials if not trial.state.is_finished()}
    held = [(unfinished[lease.trial_id], lease) for lease in leases if lease.trial_id in unfinished]
    epochs = study.config.training.epochs
    running = sorted((_running(trial, lease, epochs) for trial, lease in held), key=attrgetter("trial"))
    ended = ended_trials(trials)
    left = seconds_left(
        record.n_trials - counts.finished, [trial.epoch / epochs for trial in running if not trial.lost], ended
    )
    pruned = next((trial for trial in reversed(ended) if trial.state is TrialState.PRUNED), None)
    failed = next((trial for trial in reversed(trials) if trial.state is TrialState.FAIL), None)
    return StudyStatus(
        name=study.name,
        confirms=study.confirms,
        n_trials=record.n_trials,
        counts=counts,
        best_accuracy=best.value if best else None,
        best_trial=best.number if best else None,
        best_control=best.user_attrs.get("control") if best else None,
        best_cost=recorded_cost(best.user_attrs) if best else None,
        controls=tuple(
            ControlStatus(
                control=trial.user_attrs["control"],
                trial=trial.number,
                validation_accuracy=trial.value if trial.state is TrialState.COMPLETE else None,
            )
            for trial in trials
            if "control" in trial.user_attrs
        ),
        last_pruned=PrunedTrial(trial=pruned.number, reason=str(pruned.user_attrs.get("reason"))) if pruned else None,
        epochs=epochs,
        running=tuple(running),
        seconds_left=left and min(left, until),
        finished=counts.finished >= record.n_trials,
        stopped=record.stopped,
        stop_planned=record.stop_planned,
        deadline=None if record.deadline is None else record.deadline.isoformat(),
        last_failure=str(failed.user_attrs.get("reason")) if failed else None,
        metric=study.config.metric,
        strata=strata_status(study.config.strata, trials),
    )


def seconds_left(to_go: int, done: Sequence[float], ended: Sequence[FrozenTrial]) -> float | None:
    """Estimate the seconds until `to_go` more trials have ended, at the mean duration of those that ended last.

    The estimate is None while nothing runs, nothing is left or nothing has ended. `done` holds the share of its epochs
    that each running trial has done; `ended` is in the order in which they ended.
    """
    # Both times are of the clock of the host that trained; that host's clock is compared with no other.
    durations = [
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        for trial in ended[-_RECENT:]
        if trial.datetime_start and trial.datetime_complete and trial.intermediate_values
    ]
    if to_go <= 0 or not done or not durations:
        return None
    return max(0.0, to_go - sum(done)) * statistics.fmean(durations) / min(len(done), to_go)


def state_in_words(study: StudyStatus) -> str:
    """Return finished, stopped, stopping while trials still run, running, not running or unusable."""
    if study.unusable is not None:
        return "unusable"
    if study.finished:
        return "finished"
    runs = any(not trial.lost for trial in study.running)
    if study.stopped is not None:
        return "stopping" if runs else "stopped"
    return "running" if runs else "not running"


def _running(trial: FrozenTrial, lease: Lease, epochs: int) -> RunningTrial:
    accuracies = trial.intermediate_values
    return RunningTrial(
        trial=trial.number,
        attempt=lease.attempt,
        epoch=max([lease.last_epoch, *accuracies]),
        epochs=epochs,
        validation_accuracy=accuracies[max(accuracies)] if accuracies else None,
        validation_accuracies=tuple(accuracies[epoch] for epoch in sorted(accuracies)),
        control=trial.user_attrs.get("control"),
        worker=lease.worker,
        host=lease.process.host,
        device=lease.device and trial.user_attrs.get("device"),  # a lease says auto where the user did
        beat=lease.beat,
        lost=is_dead(lease.process),
    )
