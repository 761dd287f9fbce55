"""Return the trials of a study as plain frozen objects, for people's own tables and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from optuna.trial import FrozenTrial

from igkd_hpo.config.cost import recorded_cost
from igkd_hpo.config.space import Value
from igkd_hpo.search.study import SearchStudy

State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial as it was when it was read.

    Args:
        accuracy: on the validation split after its last epoch, a fraction; None before the first.
        accuracies: validation accuracy by epoch, from 1.
        hyperparameters: all of them, as they train; empty before a worker has taken the trial.
        control: its name, if it is a control.
        seed: of initial weights, order, views and overlays; None before a worker has taken it.
        attempts: runs so far; more than one when a worker was lost or stopped on the way.
        host: where it ran last; None before a worker has taken it.
        device: for example cuda:0; None before it was started.
        reason: why it was pruned, or failed.
        cost: of its student to store and to run, by the names of `StudentCost`; None what was not recorded.
        started, ended: by the clock of the host that it ran on; None where it has not.
    """

    number: int
    state: State
    accuracy: float | None
    accuracies: Mapping[int, float]
    hyperparameters: Mapping[str, Value]
    control: str | None
    seed: int | None
    attempts: int
    host: str | None
    device: str | None
    reason: str | None
    cost: Mapping[str, Any]
    started: datetime | None
    ended: datetime | None

    @property
    def epochs(self) -> int:
        """Return how many it has finished."""
        return max(self.accuracies, default=0)

    @property
    def seconds(self) -> float | None:
        """Return how long its last attempt took; None where it has not ended."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


def study_trials(study: SearchStudy) -> list[TrialRecord]:
    """Return all trials, by number. Raises StorageError."""
    return [_trial(trial) for trial in study.trials()]


def _trial(trial: FrozenTrial) -> TrialRecord:
    facts, accuracies = trial.user_attrs, trial.intermediate_values
    last = accuracies[max(accuracies)] if accuracies else None
    return TrialRecord(
        number=trial.number,
        state=cast("State", trial.state.name),
        accuracy=trial.value if trial.value is not None else last,
        accuracies=dict(accuracies),
        hyperparameters=dict(facts.get("hyperparameters", {})),
        control=facts.get("control"),
        seed=facts.get("seed"),
        attempts=facts.get("attempts", 0),
        host=facts.get("host"),
        device=facts.get("device"),
        reason=facts.get("reason"),
        cost=recorded_cost(facts),
        started=trial.datetime_start and trial.datetime_start.astimezone(),  # Optuna's have no zone
        ended=trial.datetime_complete and trial.datetime_complete.astimezone(),
    )
