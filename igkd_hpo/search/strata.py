"""Strata of a search: which a trial is drawn for, which it belongs to by its size, and what each sees of the rest."""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.cost import STRATUM
from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.config.strata import Strata, Stratum
from igkd_hpo.distillation.metrics import Metric, measured
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.trial_cost import cost_of
from igkd_hpo.words import counted

_CONSTRAINT = f"constraints:{STRATUM}"  # Optuna's name of it among a trial's system attributes


@dataclass(frozen=True, kw_only=True)
class StratumStatus:
    """A stratum at a glance, its trials those of this size, whatever they were drawn for.

    Args:
        cost, end: what it is of, and its upper end.
        finished: COMPLETE and PRUNED trials that were trained.
        best_trial, best_accuracy: of its COMPLETE ones; None without.
    """

    cost: str
    end: float
    finished: int
    best_trial: int | None
    best_accuracy: float | None


def drawn_for(strata: Strata | None, trial: FrozenTrial) -> Stratum | None:
    """Return the stratum that the sampler drew a trial for; None where it chose without one, or did not choose."""
    end = trial.user_attrs.get(STRATUM)
    return None if strata is None else next((one for one in strata.each if one.end == end), None)


def stratum_of(strata: Strata, trial: FrozenTrial) -> Stratum | None:
    """Return the stratum of a trial's student by its size; None beyond the last, and where that was not recorded."""
    return strata.holding(cost_of(trial, strata.of))


def next_stratum(strata: Strata, trials: Iterable[FrozenTrial], given_up: Sequence[Stratum] = ()) -> Stratum:
    """Return the stratum that the fewest trials were drawn for, the smallest of equals.

    Those beyond a limit do not count: a stratum that is hard to hit is drawn for until a trial fits into it.

    Args:
        given_up: those that nothing is drawn for any more, unless they are all.
    """
    drawn = Counter(trial.user_attrs.get(STRATUM) for trial in trials if not is_infeasible(trial))
    left = [one for one in strata.each if one not in given_up] or strata.each
    return min(left, key=lambda one: drawn[one.end])


def unreached(strata: Strata, ended: Sequence[FrozenTrial], most: int) -> list[Stratum]:
    """Return the strata of whose trials, which have ended in this order, the newest `most` were all beyond a limit."""
    found = []
    for one in strata.each:
        newest = [trial for trial in ended if trial.user_attrs.get(STRATUM) == one.end][-most:]
        if len(newest) == most and all(map(is_infeasible, newest)):
            found.append(one)
    return found


def see_from(stratum: Stratum, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials as a search within the stratum has them: what is larger is beyond its limit, whatever it reached.

    Left out is what another stratum was too small for and this one is not: nothing was trained there, and a sampler
    would take it for a bad trial.
    """
    return [seen for trial in trials if (seen := _seen_from(stratum, trial)) is not None]


def _seen_from(stratum: Stratum, trial: FrozenTrial) -> FrozenTrial | None:
    if not trial.state.is_finished():  # it may have no cost yet, and no sampler asks
        return trial
    value = cost_of(trial, stratum.cost)
    over = 0.0 if value is None else stratum.excess(value)  # each must have it: Optuna's `gp` counts them
    seen = copy.copy(trial)
    seen.system_attrs = {**trial.system_attrs, _CONSTRAINT: over}
    return None if is_infeasible(trial) and not is_infeasible(seen) else seen


def see_within(strata: Strata, stratum: Stratum | None, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials whose students are of this stratum by their size."""
    return [trial for trial in trials if stratum_of(strata, trial) == stratum]


def strata_status(strata: Strata | None, trials: Sequence[FrozenTrial]) -> tuple[StratumStatus, ...]:
    """Return how many trials of each size there are, and the best; nothing without strata."""
    if strata is None:
        return ()
    found = []
    for one in strata.each:
        within = see_within(strata, one, trials)
        ended = [trial for trial in within if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        complete = [trial for trial in within if trial.state is TrialState.COMPLETE]
        best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
        found.append(
            StratumStatus(
                cost=one.cost,
                end=one.end,
                finished=sum(not is_infeasible(trial) for trial in ended),
                best_trial=best.number if best else None,
                best_accuracy=best.value if best else None,
            )
        )
    return tuple(found)


def strata_in_words(found: Sequence[StratumStatus], metric: Metric) -> str:
    """Say in one line how many trials each stratum has, and its best; nothing where there are none."""
    parts = []
    for one in found:
        best = "" if one.best_accuracy is None else f", best {measured(one.best_accuracy, metric)} (#{one.best_trial})"
        within = COSTS[one.cost].in_words(one.end) if one is found[0] else f"{one.end:,.12g}"
        parts.append(f"up to {within}: {counted(one.finished, 'trial')}{best}")
    return "; ".join(parts)
