"""Cost of a trial's student as it was recorded, and the trials that are within limits to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from igkd_hpo.config.cost_limit import COSTS, under_as_flags, under_in_words
from igkd_hpo.words import counted, percent

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class UnderLimits:
    """COMPLETE trials set against limits, by number: within all of them, or of unknown cost; the rest is beyond one."""

    within: Sequence[FrozenTrial]
    unmeasured: Sequence[FrozenTrial]


def cost_of(trial: FrozenTrial, name: str) -> float | None:
    """Return a recorded cost by its name; None where it was not measured. Unpruned students have no parameter at 0."""
    cost = trial.user_attrs.get(name)
    if cost is None and name == "nonzero_parameters":
        cost = trial.user_attrs.get("parameters")
    return cost if isinstance(cost, int | float) else None


def select_under(trials: Sequence[FrozenTrial], under: Mapping[str, float]) -> UnderLimits:
    """Select the trials within limits. One that is beyond a limit that was measured is not of unknown cost."""
    within: list[FrozenTrial] = []
    unmeasured: list[FrozenTrial] = []
    for trial in trials:
        costs = [(cost_of(trial, name), limit) for name, limit in under.items()]
        if any(cost is not None and cost > limit for cost, limit in costs):
            continue
        (unmeasured if any(cost is None for cost, _ in costs) else within).append(trial)
    return UnderLimits(within=within, unmeasured=unmeasured)


def why_nothing_meets(study: str, trials: Sequence[FrozenTrial], under: Mapping[str, float]) -> str:
    """Say in one line that none of the COMPLETE trials is within the limits, and which is nearest to them.

    The nearest exceeds the limit that it is farthest above by the smallest factor; of equals it is the best.
    """
    unmeasured = select_under(trials, under).unmeasured
    known = [trial for trial in trials if all(cost_of(trial, name) is not None for name in under)]
    said = f"no completed trial of {study} is known to have {under_in_words(under)}"
    if unmeasured:
        said += f"; {_not_measured(unmeasured, under)}"
    if not known:
        return f"{said}; limit what was measured, or search again under a new name"

    def factor(trial: FrozenTrial) -> float:
        return max((cost_of(trial, name) or 0) / limit for name, limit in under.items())

    nearest = min(known, key=lambda trial: (factor(trial), -(trial.value or 0), trial.number))
    costs = {name: cost_of(nearest, name) or 0 for name in under}
    beyond = {name: cost for name, cost in costs.items() if cost > under[name]}
    enough = {name: max(limit, costs[name]) for name, limit in under.items()}
    return (
        f"{said}; the nearest is trial {nearest.number} with {percent(nearest.value or 0)} and "
        f"{' and '.join(COSTS[name].in_words(cost) for name, cost in beyond.items())}; allow it with"
        f"{under_as_flags(enough)}, or search smaller students"
    )


def remarks(trials: Sequence[FrozenTrial], under: Mapping[str, float]) -> tuple[str, ...]:
    """Say, a line each, what limits do not say of COMPLETE trials: unknown costs, and latencies of several hosts."""
    selected, found = select_under(trials, under), []
    if selected.unmeasured:
        best = max(selected.unmeasured, key=lambda trial: (trial.value, -trial.number))
        reached = percent(best.value or 0)
        missing = _not_measured(selected.unmeasured, under)
        found.append(f"left out: {missing}; the best of them is trial {best.number} with {reached}")
    hosts = sorted({str(trial.user_attrs.get("host", "unknown")) for trial in trials})
    timed = [name for name in under if name.startswith("latency")]
    if timed and len(hosts) > 1:
        named = ", ".join(hosts[:_MOST_NAMED]) + (" …" if len(hosts) > _MOST_NAMED else "")
        found.append(
            f"{timed[0]} was measured on {len(hosts)} hosts ({named}), and a slower one makes any student slower"
        )
    return tuple(found)


def _not_measured(unmeasured: Sequence[FrozenTrial], under: Mapping[str, float]) -> str:
    names = [name for name in under if any(cost_of(trial, name) is None for trial in unmeasured)]
    numbers = ", ".join(str(trial.number) for trial in unmeasured[:_MOST_NAMED])
    more = f" and {len(unmeasured) - _MOST_NAMED} more" if len(unmeasured) > _MOST_NAMED else ""
    return f"{' and '.join(names)} of {counted(len(unmeasured), 'completed trial')} ({numbers}{more}) was not recorded"
