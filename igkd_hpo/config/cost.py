"""What a student costs, set against what the device allows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Limits
from igkd_hpo.distillation.recipe import KNOB_OF

# A limit's name in the study file, and how to say a value of it.
_IN_WORDS = {
    "parameters": "{:,.0f} parameters",
    "macs": "{:,.0f} multiply-adds",
    "size_kb": "{:,.1f} kB of weights",
    "latency_ms": "{:.3g} ms for an image",
}


@dataclass(frozen=True, kw_only=True)
class StudentCost:
    """What a student costs to store and to run; each field is a user attribute of its trial.

    Args:
        parameters: numbers that it learns.
        macs: multiply-adds for one image, in convolutions and linear layers.
        size_kb: of the parameters in float32, in 1,024 bytes.
        compression_factor: the teacher's number over it, of several teachers one's; None where none was looked at.
        latency_ms: the median for one image; None where the counts are beyond a limit already.
        latency_ms_p95: what 95 of 100 images need at most.
        latency_of: how the two were measured, in words.
    """

    parameters: int
    macs: int
    size_kb: float
    compression_factor: float | None = None
    latency_ms: float | None = None
    latency_ms_p95: float | None = None
    latency_of: str | None = None

    def as_attributes(self) -> dict[str, Any]:
        """User attributes by name, those that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


COST_ATTRIBUTES = tuple(field.name for field in fields(StudentCost))


def architecture(hyperparameters: Mapping[str, Value]) -> tuple[Value, ...]:
    """What of the hyperparameters a student's cost depends on."""
    return tuple(hyperparameters[name] for name in KNOB_OF)


def recorded_cost(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The cost among a trial's user attributes, None where it was not recorded."""
    return {name: attributes.get(name) for name in COST_ATTRIBUTES}


def excess(limits: Limits, cost: StudentCost) -> dict[str, float]:
    """By how much of itself each limit that was measured is exceeded: 0.1 is 10 % too much, 0 or less is within it.

    These are Optuna's constraints: its samplers add up what is above 0, and fractions of limits can be added.
    """
    limited = {name: limit for name, limit in limits.model_dump().items() if limit is not None}
    return {
        name: (value - limit) / limit for name, limit in limited.items() if (value := getattr(cost, name)) is not None
    }


def why_infeasible(limits: Limits, cost: StudentCost) -> str | None:
    """Every limit that is exceeded, with value and limit, in words; None when it is within all of them."""
    beyond = [
        f"{_IN_WORDS[name].format(getattr(cost, name))} where limits.{name} allows {getattr(limits, name):,g}"
        for name, over in excess(limits, cost).items()
        if over > 0
    ]
    return " and ".join(beyond) or None
