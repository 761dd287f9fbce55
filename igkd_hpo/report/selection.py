"""Selection of the trials that a picture shows, and of where its axis of accuracies begins."""

from collections.abc import Sequence
from statistics import median

from optuna.trial import FrozenTrial, TrialState

Trials = list[FrozenTrial]


def split_by_kind(trials: Sequence[FrozenTrial]) -> tuple[Trials, Trials, Trials]:
    """Split trials into COMPLETE ones of the search, PRUNED ones, and COMPLETE controls; leave out the others."""
    ended = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return (
        [trial for trial in ended if "control" not in trial.user_attrs],
        [trial for trial in trials if trial.state is TrialState.PRUNED],
        [trial for trial in ended if "control" in trial.user_attrs],
    )


def thin(trials: Sequence[FrozenTrial], most: int | None) -> Trials:
    """Choose at most that many of the trials, evenly and in their order; None leaves them all."""
    if most is None or len(trials) <= most:
        return list(trials)
    return [trials[i * len(trials) // most] for i in range(most)]


def learning_curve(trial: FrozenTrial) -> tuple[list[int], list[float]]:
    """Return the epochs of a trial, from 1, and the validation accuracies after them."""
    epochs = sorted(trial.intermediate_values)
    return epochs, [trial.intermediate_values[epoch] for epoch in epochs]


def lowest_shown(accuracies: Sequence[float], others: Sequence[float] = ()) -> float:
    """Return where an axis begins: what is much worse than half of the trials would flatten the rest.

    Args:
        others: drawn too, though half of the trials is counted without them: pruned ones, which ended early.
    """
    best = max(accuracies)
    return max(min([*accuracies, *others]), best - max(4 * (best - median(accuracies)), 0.02))
