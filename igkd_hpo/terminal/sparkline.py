"""Draw a curve as one line of text."""

import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], *, total: int, width: int, low: float, high: float) -> str:
    """Draw the values so far of `total` to come, in blocks from `low` to `high`; all `total` fill `width` cells.

    A cell that stands for several values shows the last of them that is there. The line is as long as the values reach.

    Raises:
        ValueError: `total` or `width` is below 1.
    """
    if total < 1 or width < 1:
        raise ValueError(f"no room for {total} values in {width} cells")
    cells = []
    for cell in range(width):
        first, last = cell * total // width, math.ceil((cell + 1) * total / width) - 1
        if first >= len(values):
            break
        cells.append(_level(values[min(last, len(values) - 1)], low, high))
    return "".join(cells)


def _level(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.5
    return _LEVELS[min(max(int(share * len(_LEVELS)), 0), len(_LEVELS) - 1)]
