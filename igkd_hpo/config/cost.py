"""Cost of a student, the limits of a study file, and its violation of them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from igkd_hpo.config.cost_limit import COSTS, parse_under
from igkd_hpo.config.space import Value
from igkd_hpo.config.strata import Stratum
from igkd_hpo.config.study import Limits
from igkd_hpo.distillation.recipe import KNOB_OF
from igkd_hpo.errors import UsageError

STRATUM = "stratum"
"""Name of the constraint, and of the user attribute, that a trial has of the stratum that it was drawn for."""


@dataclass(frozen=True, kw_only=True)
class StudentCost:
    """Cost of storing and running a student; each field is a user attribute of its trial.

    Args:
        parameters: numbers that it learns.
        macs: multiply-adds for one image, in convolutions and linear layers.
        size_kb: of the parameters in float32, in 1,024 bytes.
        peak_ram_kb: of one image and its activations, the most at once, one byte each, in 1,024 bytes.
        nonzero_parameters: the parameters that are not set to 0; None where none are.
        compression_factor: one teacher's parameters over its own; None where no teacher was looked at.
        latency_ms: the median for one image; None where the counts are beyond a limit already.
        latency_ms_p95: the 95th percentile.
        latency_of: the measurement of the two, in words.
    """

    parameters: int
    macs: int
    size_kb: float
    peak_ram_kb: float | None = None
    nonzero_parameters: int | None = None
    compression_factor: float | None = None
    latency_ms: float | None = None
    latency_ms_p95: float | None = None
    latency_of: str | None = None

    def as_attributes(self) -> dict[str, Any]:
        """Return the cost as user attributes by name, without those that were not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def architecture(hyperparameters: Mapping[str, Value]) -> tuple[Value, ...]:
    """Return the values of the hyperparameters that a student's cost depends on."""
    knobs = tuple(hyperparameters[name] for name in ("architecture", *KNOB_OF))
    return (*knobs, hyperparameters.get("sparsity", 0.0))


def recorded_cost(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Select the cost among a trial's user attributes; None for each that was not recorded.

    What is not 0 is told of pruned students alone.
    """
    cost = {field.name: attributes.get(field.name) for field in fields(StudentCost)}
    return {name: value for name, value in cost.items() if name != "nonzero_parameters" or value is not None}


def parse_limits(given: Iterable[str]) -> Limits:
    """Return the limits of a study file from texts `KEY=VALUE`. Raises UsageError."""
    limits = parse_under(given, known=Limits.model_fields)
    if limits.get("parameters", 1) < 1:
        raise UsageError(f"--under parameters={limits['parameters']:g}: a network has at least 1 parameter; raise it")
    if "parameters" in limits:
        limits["parameters"] = int(limits["parameters"])
    return Limits.model_validate(limits)


def excess(limits: Limits, cost: StudentCost, stratum: Stratum | None = None) -> dict[str, float]:
    """Return the relative violation of each limit that was measured, `(value - limit) / limit`; 0 or less is within it.

    These are Optuna's constraints: its samplers add up what is above 0, and fractions of limits can be added.

    Args:
        stratum: that the configuration was drawn for; its end is one more limit, by the name of `STRATUM`.
    """
    beyond = {
        name: (value - limit) / limit
        for name, limit in limits
        if limit is not None and (value := getattr(cost, name)) is not None
    }
    return beyond if stratum is None else beyond | {STRATUM: stratum.excess(getattr(cost, stratum.cost))}


def why_infeasible(limits: Limits, cost: StudentCost, stratum: Stratum | None = None) -> str | None:
    """Say which limits are exceeded, with value and limit; None when the cost is within all of them."""
    beyond = [
        f"{COSTS[name].in_words(getattr(cost, name))} where limits.{name} allows {getattr(limits, name):,g}"
        for name, over in excess(limits, cost).items()
        if over > 0
    ]
    outside = None if stratum is None else stratum.why_beyond(getattr(cost, stratum.cost))
    return " and ".join([*beyond, *([outside] if outside else [])]) or None
