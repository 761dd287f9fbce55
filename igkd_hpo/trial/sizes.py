"""Sizes of the students of a search space: whether each stratum of a study holds one, found before anything is trained.

Students grow with each knob of their architecture, so along one knob a size is found by bisection.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.config.space import FloatRange, Range, Value
from igkd_hpo.config.strata import Strata, Stratum
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.trial.student import count_cost

_POINTS = 33
"""Values of a knob that are looked at, where it has more: what lies between two of them alone is hardly ever drawn."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the smallest and of the largest student, and the strata that hold none, with advice."""

    strata: Strata
    smallest: float
    largest: float
    empty: tuple[Stratum, ...]
    remedy = "write other ends, or widen the search space"

    @property
    def range_in_words(self) -> str:
        """Say from which size to which the students are."""
        write = COSTS[self.strata.of].in_words
        return f"the students of the study have {write(self.smallest)} to {write(self.largest)}"

    @property
    def fault(self) -> str | None:
        """Say which strata are empty; None where none is."""
        if not self.empty:
            return None
        write = COSTS[self.strata.of].in_words
        named = " and ".join(f"from {write(one.above)} to {write(one.end)}" for one in self.empty)
        return f"strata.at: no student is in the stratum {named}; {self.range_in_words}"


def find_sizes(
    study: Study,
    strata: Strata,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    allow_import: frozenset[str],
) -> Sizes:
    """Look for a student of the search space in each stratum; builds some dozens of them, and counts their cost."""
    known: dict[tuple[Value, ...], float] = {}

    def count(values: Mapping[str, Value]) -> float:
        key = tuple(values.values())
        if key not in known:
            known[key] = count_cost(strata.of, values, num_classes, image_size, allow_import=allow_import)
        return known[key]

    def holds(stratum: Stratum, line: Sequence[Mapping[str, Value]]) -> bool:
        if count(line[0]) > stratum.end or count(line[-1]) <= stratum.above:
            return False
        return count(line[bisect_right(line, stratum.end, key=count) - 1]) > stratum.above

    of_each = [_lines(study, name) for name in study.hyperparameters.words("architecture")]
    lines = list(itertools.chain(*of_each))
    empty = tuple(one for one in strata.each if not any(holds(one, line) for line in lines))
    smallest, largest = min(count(one[0][0]) for one in of_each), max(count(one[-1][-1]) for one in of_each)
    return Sizes(strata=strata, smallest=smallest, largest=largest, empty=empty)


def _lines(study: Study, architecture: str) -> list[list[dict[str, Value]]]:
    """Return the students of an architecture, those that differ in its last knob alone in a list, the smallest first.

    They hold the values of their kind's knobs, those that the network does not have at their smallest.
    """
    kind = find_architecture(architecture)
    own = kind.knobs_of(architecture)
    values: dict[str, list[Value]] = {}
    for name, knob in kind.knobs.items():
        points = _points(getattr(study.hyperparameters, name))
        values[name] = sorted(points, reverse=knob.smallest == "high") if name in own else points[:1]
    if not values:
        return [[{"architecture": architecture}]]
    *others, last = values.values()
    return [
        [{"architecture": architecture, **dict(zip(values, (*fixed, value), strict=True))} for value in last]
        for fixed in itertools.product(*others)
    ]


def _points(setting: Value | Range) -> list[Value]:
    """Return values of a number that is searched, evenly spaced where it has many or no end of them."""
    if not isinstance(setting, Range):
        return [setting]
    points = setting.points()
    if points is None:
        assert isinstance(setting, FloatRange), "all others have points"
        low, high = setting.corners()
        shares = [number / (_POINTS - 1) for number in range(_POINTS)]
        if setting.log:
            return [*(low * (high / low) ** share for share in shares[:-1]), high]
        return [*(low + (high - low) * share for share in shares[:-1]), high]
    step = max(1, math.ceil((len(points) - 1) / (_POINTS - 1)))
    return [*points[:-1:step], points[-1]]
