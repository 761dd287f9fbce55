"""Strata of a study file: ranges of a student's size, each of which the search tries as often as the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator

from igkd_hpo.config.cost_limit import COSTS, read_cost
from igkd_hpo.config.space import Frozen

_ENDS = 20
"""Ends at most: with more, a search of a hundred trials has too few in each to learn from."""


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Students whose `cost` is above `above`, the end of the stratum before, and at most `end`."""

    cost: str
    above: float
    end: float

    def __str__(self) -> str:
        return f"up to {COSTS[self.cost].in_words(self.end)}"

    def excess(self, value: float) -> float:
        """Return how far a cost is beyond the end, relative to it; 0 or less is within."""
        return (value - self.end) / self.end

    def why_beyond(self, value: float) -> str | None:
        """Say that a cost is beyond the end; None where it is not."""
        if value <= self.end:
            return None
        return f"{COSTS[self.cost].in_words(value)} where the stratum it was drawn for ends at {self.end:,.12g}"


class Strata(Frozen):
    """Ranges of a cost that is known before training: trials are drawn for each in turn, and pruned within it."""

    of: Literal["parameters", "macs", "size_kb", "peak_ram_kb"]
    """The cost."""
    at: tuple[float, ...]
    """Upper ends in increasing order, such as [200k, 600k, 2M]; units as for --under; beyond the last none is drawn."""

    @field_validator("of", mode="before")
    @classmethod
    def _known_before_training(cls, cost: Any) -> Any:
        if isinstance(cost, str) and cost.startswith("latency"):
            raise ValueError(
                f"{cost} is measured, on each host anew, and strata are of what is known before; write parameters, "
                "macs, size_kb or peak_ram_kb"
            )
        return cost

    @field_validator("at", mode="before")
    @classmethod
    def _with_units(cls, ends: Any, info: ValidationInfo) -> Any:
        if not isinstance(ends, list | tuple):  # which is refused next
            return ends
        if "of" not in info.data:  # which is refused, and says nothing of these
            return (1.0, 2.0)
        return tuple(read_cost(info.data["of"], str(end)) if _is_size(end) else end for end in ends)

    @field_validator("at")
    @classmethod
    def _in_order(cls, ends: tuple[float, ...]) -> tuple[float, ...]:
        if not 2 <= len(ends) <= _ENDS:
            raise ValueError(f"{len(ends)} ends; write 2 to {_ENDS}, or one limit in limits")
        for one, other in pairwise(ends):
            if one >= other:
                raise ValueError(
                    f"{other:,.12g} comes after {one:,.12g}; write the ends in increasing order, each once"
                )
        return ends

    @cached_property  # asked for each trial of a study, after each epoch
    def each(self) -> tuple[Stratum, ...]:
        """Return the strata, the smallest students first."""
        return tuple(Stratum(cost=self.of, above=above, end=end) for above, end in pairwise((0.0, *self.at)))

    def holding(self, value: float | None) -> Stratum | None:
        """Return the stratum that a cost lies in; None beyond the last end, and where it is not known."""
        return None if value is None else next((one for one in self.each if value <= one.end), None)

    def refused(self, limits: Sequence[tuple[str, float | None]], sampler: str) -> str | None:
        """Say why a search with these limits, by name, and this sampler cannot have them; None where it can."""
        if sampler == "grid":
            return "a grid runs every configuration once, whatever its size; take tpe or qmc, or leave strata out"
        limit = dict(limits).get(self.of)
        if limit is not None and self.at[-1] > limit:
            return (
                f"{self.at[-1]:,.12g} is above limits.{self.of} {limit:,.12g}, beyond which nothing is trained; "
                "lower it, or raise the limit"
            )
        return None


def _is_size(end: Any) -> bool:
    return isinstance(end, str | int | float) and not isinstance(end, bool)
