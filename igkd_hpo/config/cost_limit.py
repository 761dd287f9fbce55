"""Costs of a student that a limit can be set to, their units, and how people write and read them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from igkd_hpo.errors import UsageError, near_or_all
from igkd_hpo.words import milliseconds, multiply_adds, parameters

_COUNT: dict[str, float] = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
_SIZE: dict[str, float] = {"": 1, "KB": 1, "KiB": 1, "MB": 1024, "MiB": 1024}
_TIME: dict[str, float] = {"": 1, "ms": 1, "s": 1000}
_VALUE = re.compile(r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, kw_only=True)
class CostKind:
    """A kind of cost, of which less is better.

    Args:
        units: factors of the units that a limit can be written in; "" is no unit.
        in_words: writes a value for people.
        title: of an axis or a column.
    """

    units: Mapping[str, float]
    in_words: Callable[[float], str]
    title: str


COSTS: dict[str, CostKind] = {
    "parameters": CostKind(units=_COUNT, in_words=parameters, title="parameters"),
    "nonzero_parameters": CostKind(
        units=_COUNT, in_words=lambda count: f"{parameters(count)} that are not 0", title="parameters that are not 0"
    ),
    "macs": CostKind(units=_COUNT, in_words=multiply_adds, title="multiply-adds for an image"),
    "size_kb": CostKind(units=_SIZE, in_words=lambda size: f"{size:,.1f} KiB of weights", title="KiB of weights"),
    "peak_ram_kb": CostKind(
        units=_SIZE,
        in_words=lambda size: f"{size:,.1f} KiB of activations at once",
        title="KiB of activations at once",
    ),
    "latency_ms": CostKind(
        units=_TIME, in_words=lambda latency: f"{milliseconds(latency)} for an image", title="ms for an image"
    ),
    "latency_ms_p95": CostKind(
        units=_TIME,
        in_words=lambda latency: f"{milliseconds(latency)} for an image, 95th percentile",
        title="ms for an image, 95th percentile",
    ),
}
"""Kinds of cost by their names, which are those of `StudentCost` and of a trial's user attributes."""


def check_cost(name: str) -> str:
    """Return the name of a cost. Raises UsageError that says which there are."""
    if name not in COSTS:
        raise UsageError(f"{name!r} is no cost{near_or_all(name, COSTS)}")
    return name


def check_under(under: Mapping[str, float | str]) -> dict[str, float]:
    """Return limits as numbers above 0, in the units that the costs are recorded in. Raises UsageError.

    Args:
        under: by the names of costs; texts may have a unit of their cost, such as `200k`.
    """
    return {name: _parse(f"{name}={value}", name, str(value), COSTS) for name, value in under.items()}


def parse_under(given: Iterable[str], *, known: Iterable[str] = COSTS) -> dict[str, float]:
    """Return the limits of texts `KEY=VALUE`; the values may end in a unit of their key. Raises UsageError.

    Args:
        known: names of the costs that can be limited here.
    """
    limits: dict[str, float] = {}
    for text in given:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"--under {text!r} is no KEY=VALUE; write for instance parameters=500k")
        if key in limits:
            raise UsageError(f"--under says {key} twice; say it once")
        limits[key] = _parse(text, key, value, known)
    return limits


def under_in_words(under: Mapping[str, float]) -> str:
    """Write limits for people: at most 200,000 parameters and 5.000 ms for an image."""
    return f"at most {' and '.join(COSTS[name].in_words(limit) for name, limit in under.items())}"


def under_as_flags(under: Mapping[str, float]) -> str:
    """Write limits as the flags that give them, to put behind a command; empty where there are none."""
    return "".join(f" --under {name}={limit:.12g}" for name, limit in under.items())


def read_cost(name: str, text: str) -> float:
    """Return a limit to a cost as a number above 0, in the unit that the cost is recorded in.

    Raises ValueError, which pydantic collects, for what is no number, no unit of that cost, or not above 0.
    """
    units = COSTS[name].units
    named = [unit for unit in units if unit]
    matched = _VALUE.fullmatch(text)
    try:
        number, unit = (float(matched[1]), matched[2]) if matched else (0.0, "")
    except ValueError:  # 1.2.3
        number, unit, matched = 0.0, "", None
    if matched is None:
        raise ValueError(f"{text!r} is no number; write one, maybe with {', '.join(named)}")
    if unit not in units:
        raise ValueError(f"{unit!r} is no unit of {name}{near_or_all(unit, named)}")
    limit = number * units[unit]
    if not 0 < limit < float("inf"):
        raise ValueError(f"{text} is no limit: it must be above 0; raise it")
    return limit


def _parse(text: str, key: str, value: str, known: Iterable[str]) -> float:
    if key not in known:
        raise UsageError(f"--under {text}: {key!r} is no cost{near_or_all(key, known)}")
    try:
        return read_cost(key, value)
    except ValueError as error:
        raise UsageError(f"--under {text}: {error}") from None
