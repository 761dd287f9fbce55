"""Limits of a device as people say them on a command line: `parameters=500k`, `latency_ms=5ms`."""

import re
from collections.abc import Iterable

from igkd_hpo.config.study import Limits
from igkd_hpo.errors import UsageError, did_you_mean

_COUNT: dict[str, float] = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
_SIZE: dict[str, float] = {"": 1, "KB": 1, "KiB": 1, "MB": 1024, "MiB": 1024}
_UNITS: dict[str, dict[str, float]] = {
    "parameters": _COUNT,
    "macs": _COUNT,
    "size_kb": _SIZE,
    "peak_ram_kb": _SIZE,
    "latency_ms": {"": 1, "ms": 1, "s": 1000},
}
_VALUE = re.compile(r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z]*)")


def parse_limits(given: Iterable[str]) -> Limits:
    """Return the limits of texts `KEY=VALUE`; the values may end in a unit of their key. Raises UsageError."""
    limits: dict[str, float] = {}
    for text in given:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"--under {text!r} is no KEY=VALUE; write for instance parameters=500k")
        if key not in _UNITS:
            known = did_you_mean(key, _UNITS) or f" (there are: {', '.join(_UNITS)})"
            raise UsageError(f"--under {text}: {key!r} is no limit{known}")
        if key in limits:
            raise UsageError(f"--under says {key} twice; say it once")
        limits[key] = _parse(text, key, value)
    return Limits.model_validate(limits)


def _parse(text: str, key: str, value: str) -> float:
    units = _UNITS[key]
    named = [unit for unit in units if unit]
    matched = _VALUE.fullmatch(value)
    try:
        number, unit = (float(matched[1]), matched[2]) if matched else (0.0, "")
    except ValueError:  # 1.2.3
        number, unit, matched = 0.0, "", None
    if matched is None:
        raise UsageError(f"--under {text}: {value!r} is no number; write one, maybe with {', '.join(named)}")
    if unit not in units:
        near = did_you_mean(unit, named) or f" (there are: {', '.join(named)})"
        raise UsageError(f"--under {text}: {unit!r} is no unit of {key}{near}")
    limit = number * units[unit]
    if not 0 < limit < float("inf"):
        raise UsageError(f"--under {text}: a limit must be above 0; raise it")
    if key != "parameters":
        return limit
    if limit < 1:
        raise UsageError(f"--under {text}: a network has at least 1 parameter; raise it")
    return int(limit)
