"""Latency of one call on one thread, which other work on the machine does not change much."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_WARM_UP = 5  # calls: the first ones choose kernels and allocate memory
_FEWEST, _MOST = 5, 100  # timed calls
_SECONDS = 0.25  # of timing, after which no further call begins


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of one call: the median and the 95th percentile of `calls`, after `warm_up` that were not timed."""

    median: float
    p95: float
    calls: int
    warm_up: int


def measure_latency(call: Callable[[], object]) -> Latency:
    """Time a call that does all its work in this thread, for a quarter of a second or so.

    Counted is the thread's CPU time: on one thread it is the time that the call takes on a free core, and
    trials that train beside it do not make it longer by having their turn.
    """
    begun = time.perf_counter()
    warm_up = 0
    while warm_up < _WARM_UP and (warm_up < 1 or time.perf_counter() - begun < _SECONDS):
        call()
        warm_up += 1
    begun = time.perf_counter()
    taken: list[float] = []
    while len(taken) < _FEWEST or (len(taken) < _MOST and time.perf_counter() - begun < _SECONDS):
        before = time.thread_time()
        call()
        taken.append(1000 * (time.thread_time() - before))
    return summarize(taken, warm_up=warm_up)


def summarize(milliseconds: list[float], *, warm_up: int) -> Latency:
    """Return the median and the 95th percentile (nearest rank) of one time or more."""
    median, p95 = np.quantile(milliseconds, [0.5, 0.95], method="inverted_cdf").tolist()
    return Latency(median=median, p95=p95, calls=len(milliseconds), warm_up=warm_up)
