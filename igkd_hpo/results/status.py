"""What every study in a database is doing, read without disturbing anybody."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.results.best import percent
from igkd_hpo.search.identity import is_gone
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.lease_table import Lease
from igkd_hpo.search.limits import recorded_cost
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import Counts, SearchStudy, count, study_names

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that a worker holds.

    Args:
        trial: its number.
        attempt: from 1.
        epoch: finished epochs, of `epochs`.
        validation_accuracy: after that epoch, a fraction; None before the first.
        worker: its name; `host` is where it runs.
        device: where it trains; None until its process has started.
        lost: its worker is gone, and another one will take the trial over; None on another host, where that cannot be
            told from here.
    """

    trial: int
    attempt: int
    epoch: int
    epochs: int
    validation_accuracy: float | None
    control: str | None
    worker: str
    host: str
    device: str | None
    lost: bool | None


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """A study at a glance; accuracies are fractions.

    Args:
        n_trials: the total of COMPLETE plus PRUNED trials that ends it.
        confirms: the study whose confirmation it is, if it is one.
        best_accuracy: of the COMPLETE trials; `best_trial` is its number, `best_cost` what its student costs to store
            and to run (None what was not recorded).
        finished: nothing is left to run.
        stopped: why no new trial begins, if it was stopped before its end.
        last_failure: why the last FAIL failed.
    """

    name: str
    confirms: str | None
    n_trials: int
    counts: Counts
    best_accuracy: float | None
    best_trial: int | None
    best_cost: dict[str, Any] | None
    running: tuple[RunningTrial, ...]
    finished: bool
    stopped: str | None
    last_failure: str | None


def status(storage: SharedStorage) -> list[StudyStatus]:
    """Every study of this project, the last launched last, each followed by its confirmation. Raises StorageError."""
    found = [study_status(SearchStudy(storage, name)) for name in study_names(storage)]
    launched = {study.name: place for place, study in enumerate(found)}

    def place(study: StudyStatus) -> tuple[int, bool]:
        return launched.get(study.confirms or study.name, launched[study.name]), study.confirms is not None

    return sorted(found, key=place)


def study_status(study: SearchStudy) -> StudyStatus:
    """One study. Raises StorageError."""
    leases = Leases(study).held()
    trials = study.trials()
    counts = count(trials)
    n_trials = study.n_trials
    best = max(
        (trial for trial in trials if trial.state == TrialState.COMPLETE),
        key=lambda trial: (trial.value, -trial.number),
        default=None,
    )
    by_id = {trial._trial_id: trial for trial in trials}
    running = (
        _running(by_id[lease.trial_id], lease, study.config.training.epochs)
        for lease in leases
        # One that ended between the two readings runs no more.
        if lease.trial_id in by_id and not by_id[lease.trial_id].state.is_finished()
    )
    return StudyStatus(
        name=study.name,
        confirms=study.confirms,
        n_trials=n_trials,
        counts=counts,
        best_accuracy=best.value if best else None,
        best_trial=best.number if best else None,
        best_cost=recorded_cost(best.user_attrs) if best else None,
        running=tuple(sorted(running, key=lambda trial: trial.trial)),
        finished=counts.finished >= n_trials,
        stopped=study.stopped,
        last_failure=next(
            (str(trial.user_attrs.get("reason")) for trial in reversed(trials) if trial.state == TrialState.FAIL), None
        ),
    )


def status_table(studies: list[StudyStatus]) -> "RenderableType":
    """The same for people: a row for each study, and one for each trial that runs."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    overview = Table("study", "state", "trials", "best", box=None, pad_edge=False)
    running = Table("study", "trial", "epoch", "accuracy", "worker", box=None, pad_edge=False)
    names = {study.name for study in studies}
    for study in studies:
        counts = study.counts
        failed = f", {counts.infeasible} beyond a limit" if counts.infeasible else ""
        failed += f", {counts.fail} failed" if counts.fail else ""
        overview.add_row(
            f"  {study.name}" if study.confirms in names else study.name,
            state_in_words(study),
            f"{counts.finished} of {study.n_trials} ({counts.complete} complete, {counts.pruned} pruned{failed})",
            # The highest of a confirmation is the luckiest seed of all.
            ""
            if study.best_accuracy is None or study.confirms
            else f"{percent(study.best_accuracy)} (trial {study.best_trial})",
        )
        for trial in study.running:
            what = f"{trial.trial} ({trial.control})" if trial.control else str(trial.trial)
            again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
            where = f"{trial.worker} on {trial.host}" + (f" ({trial.device})" if trial.device else "")
            running.add_row(
                study.name,
                what + again,
                f"{trial.epoch} of {trial.epochs}",
                "" if trial.validation_accuracy is None else percent(trial.validation_accuracy),
                Text(f"{where}, gone" if trial.lost else where),
            )
    reasons = [
        Text(f"{study.name}: {reason}")  # no markup: a reason may well hold brackets
        for study in studies
        for reason in (study.stopped and f"stopped: {study.stopped}", _failed(study))
        if reason
    ]
    return Group(*([overview] + ([running] if running.row_count else [])), *reasons)


def state_in_words(study: StudyStatus) -> str:
    """finished, stopped, running or not running."""
    if study.finished:
        return "finished"
    if study.stopped is not None:
        return "stopped"
    return "running" if any(not trial.lost for trial in study.running) else "not running"


def _failed(study: StudyStatus) -> str | None:
    return study.last_failure and f"the last failed trial: {study.last_failure.strip().splitlines()[-1]}"


def _running(trial: FrozenTrial, lease: Lease, epochs: int) -> RunningTrial:
    accuracies = trial.intermediate_values
    return RunningTrial(
        trial=trial.number,
        attempt=lease.attempt,
        epoch=max([lease.last_epoch, *accuracies]),
        epochs=epochs,
        validation_accuracy=accuracies[max(accuracies)] if accuracies else None,
        control=trial.user_attrs.get("control"),
        worker=lease.worker,
        host=lease.process.host,
        device=lease.device,
        lost=is_gone(lease.process),
    )
