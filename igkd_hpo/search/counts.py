"""Numbers of a study's trials, by state."""

from collections import Counter
from dataclasses import astuple, dataclass

from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of trials by state; a PRUNED one that is beyond a limit was not trained, and is `infeasible` instead."""

    complete: int
    pruned: int
    infeasible: int = 0
    fail: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        """Return the number that counts towards `n_trials`: the trials that were trained."""
        return self.complete + self.pruned

    def by_word(self) -> dict[str, int]:
        """Return the number of trials in each state, by the word for it."""
        words = ("complete", "pruned", "beyond a limit", "failed", "running", "waiting")  # in the order of the fields
        return dict(zip(words, astuple(self), strict=True))

    def in_words(self) -> str:
        """Count the trials of each state in words: 17 complete, 6 pruned, 1 failed."""
        return ", ".join(f"{number} {word}" for word, number in self.by_word().items() if number) or "none yet"

    def how_to_complete(self, study: str) -> str:
        """Say what to do about a study of this name in which nothing that is asked for has completed."""
        if self.running:
            return "wait for what runs; `igkd-hpo status` shows how far it is"
        return f"`igkd-hpo status` names the reasons, `igkd-hpo launch {study}` goes on"


def count(trials: list[FrozenTrial]) -> Counts:
    """Count trials by state."""
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


def needs_another(trial: FrozenTrial) -> bool:
    """Tell whether a trial whose configuration and seed were given ended without a result: another has to take them."""
    return trial.state is TrialState.FAIL or (trial.state is TrialState.PRUNED and is_infeasible(trial))


def is_infeasible(trial: FrozenTrial) -> bool:
    """Tell whether the trial was not trained because its student is beyond a limit."""
    return any(over > 0 for over in trial.constraints.values())
