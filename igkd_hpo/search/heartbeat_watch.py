"""Time how long each lease's heartbeat has been stale, by the watcher's own clock alone."""

import math
from collections.abc import Callable, Sequence

from igkd_hpo.search.lease_table import Lease


class HeartbeatWatch:
    """Memory of when each lease's heartbeat last changed; clocks of other hosts are never compared.

    Args:
        clock: seconds, monotonic.
        longest_gap: seconds between two looks. After a longer one the watch starts again: whatever kept the watcher
            from looking (a suspended container, a debugger) may have kept the others from their heartbeats. At half of
            the staleness that counts, one such gap alone ends nobody.
    """

    def __init__(self, clock: Callable[[], float], *, longest_gap: float) -> None:
        self._clock = clock
        self._longest_gap = longest_gap
        self._looked_at = -math.inf
        self._since: dict[tuple[int, int, int], float] = {}  # (trial, attempt, beat): when it was first seen

    def stale_seconds(self, leases: Sequence[Lease]) -> list[float]:
        """Return the seconds since each lease's heartbeat changed; any lease that is not among these is forgotten."""
        now = self._clock()
        if now - self._looked_at > self._longest_gap:
            self.restart()
        self._looked_at = now
        keys = [(lease.trial_id, lease.attempt, lease.beat) for lease in leases]
        self._since = {key: self._since.get(key, now) for key in keys}
        return [now - self._since[key] for key in keys]

    def restart(self) -> None:
        """Forget all heartbeats: while the database is away nobody can write one, so old ones say nothing of life."""
        self._since.clear()
