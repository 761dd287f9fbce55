"""Spans of time as a study file and a flag write them: 90s, 10m, 8h, 2d, 1h30m."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_FORM = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")
_SECONDS = (86_400, 3_600, 60, 1)


def seconds_of(text: Any) -> int:
    """Return the seconds of a span of time. Raises ValueError, which pydantic collects."""
    found = _FORM.fullmatch(text.replace(" ", "")) if isinstance(text, str) else None
    total = 0 if found is None else sum(int(n or 0) * unit for n, unit in zip(found.groups(), _SECONDS, strict=True))
    if total == 0:
        raise ValueError(f"{text!r} is no span of time; write 90s, 10m, 8h, 2d or 1h30m")
    return total


def _check(text: Any) -> Any:
    seconds_of(text)
    return text


TimeSpan = Annotated[str, BeforeValidator(_check)]
