"""How long the holders of leases have shown no sign of life, by the watcher's own clock alone."""

import math
from collections.abc import Callable, Sequence

from igkd_hpo.search.lease_table import Lease


class Silence:
    """Remembers since when each lease's beat stands where it does.

    Clocks of other hosts are never compared: the beat only has to change.

    Args:
        clock: seconds, monotonic.
        longest_gap: seconds between two looks. After a longer one all silence starts again: whatever kept the watcher
            from looking (a suspended container, a debugger) may have kept the others from beating. At half of the
            silence that counts, one such gap alone ends nobody.
    """

    def __init__(self, clock: Callable[[], float], *, longest_gap: float) -> None:
        self._clock = clock
        self._longest_gap = longest_gap
        self._looked = -math.inf
        self._since: dict[tuple[int, int, int], float] = {}  # (trial, attempt, beat): when it was first seen

    def seconds(self, leases: Sequence[Lease]) -> list[float]:
        """The silence of each of these, which are all leases there are: what is not among them is forgotten."""
        now = self._clock()
        if now - self._looked > self._longest_gap:
            self.start_again()
        self._looked = now
        keys = [(lease.trial_id, lease.attempt, lease.beat) for lease in leases]
        self._since = {key: self._since.get(key, now) for key in keys}
        return [now - self._since[key] for key in keys]

    def start_again(self) -> None:
        """Nobody can beat while the database is away: what was seen before says nothing about who lives."""
        self._since.clear()
