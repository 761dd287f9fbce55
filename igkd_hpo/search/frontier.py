"""Frontier of a study: the trials that no other beats in the metric at the same or lower cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from optuna.trial import FrozenTrial

from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.search.best import accuracy, completed_trials
from igkd_hpo.search.seed_spread import Source, seed_spread
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.search.trial_cost import cost_of


@dataclass(frozen=True, kw_only=True)
class Step:
    """A trial of the frontier; values of the metric are fractions.

    Args:
        control: its name, if it is a control.
        cost: in the unit that it is recorded in.
        low, high: where another seed ends in 95 of 100 cases; None where that is not known.
        told_apart: it is better than the last one before it that is, by more than that; the first one is.
    """

    trial: int
    control: str | None
    validation_accuracy: float
    cost: float
    low: float | None
    high: float | None
    told_apart: bool


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The COMPLETE trials that no other beats at the same or lower cost: of one seed each, so each a little lucky.

    Args:
        cost: its name.
        steps: the cheapest first, each better than those before; of equal ones the cheaper, then the first.
        unmeasured: numbers of COMPLETE trials whose cost is not known.
        source: what the intervals are from: repeats, images (of validation), or None where there are none.
        intervals: the same in a sentence.
    """

    study: str
    cost: str
    metric: Metric
    steps: tuple[Step, ...]
    unmeasured: tuple[int, ...]
    source: Source | None
    intervals: str

    @property
    def told_apart(self) -> tuple[Step, ...]:
        """Return the steps that are larger than the interval of one seed."""
        return tuple(step for step in self.steps if step.told_apart)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def frontier(
    study: SearchStudy, cost: str, trials: Sequence[FrozenTrial] | None = None, *, confirmed: bool = True
) -> Frontier:
    """Return the frontier over a cost of `COSTS`, of `trials` if they have been read.

    Args:
        confirmed: take the spread between seeds from the study's confirmation too.
    """
    completed = completed_trials(study, trials)
    measured = [(value, trial) for trial in completed if (value := cost_of(trial, cost)) is not None]
    ordered = sorted(measured, key=lambda pair: (pair[0], -accuracy(pair[1]), pair[1].number))
    spread, steps, highest = seed_spread(study, completed, confirmed=confirmed), [], -1.0
    kept = []
    floor = -1.0  # above which a step is told apart
    for value, trial in ordered:
        if (reached := accuracy(trial)) <= highest:
            continue
        highest, reach = reached, spread.reach(trial)
        told_apart = reached > floor
        if told_apart:
            floor = reached + (reach or 0.0)
        kept.append(trial)
        steps.append(
            Step(
                trial=trial.number,
                control=trial.user_attrs.get("control"),
                validation_accuracy=reached,
                cost=value,
                low=None if reach is None else max(0.0, reached - reach),
                high=None if reach is None else min(1.0, reached + reach),
                told_apart=told_apart,
            )
        )
    known = {trial.number for _, trial in measured}
    return Frontier(
        study=study.name,
        cost=cost,
        metric=study.config.metric,
        steps=tuple(steps),
        unmeasured=tuple(number for number in map(attrgetter("number"), completed) if number not in known),
        source=spread.source(kept),
        intervals=spread.in_words(kept),
    )
