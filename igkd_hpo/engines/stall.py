"""Stall detection: a training that does no step for far longer than a step usually takes is given up."""

import time
from collections.abc import Callable

SLOWEST_START_SECONDS = (
    1800.0  # until the first step: assets from a slow disk with checksums, CUDA, kernels to be built
)
SHORTEST_SILENCE_SECONDS = (
    300.0  # a checkpoint on a network disk that hangs for minutes is no reason to kill a training
)
USUAL_STEPS = (
    100  # a step is a batch, and no batch takes a hundred times as long as the others, on a busy machine either
)


class StepWatch:
    """Watches the steps of one attempt, as they are told.

    Args:
        longest_look: seconds that pass between two looks at most; when more have passed, the watcher itself was kept
            from looking (stopped, suspended), perhaps together with the training, and only this many count.
        clock: seconds, monotonic.
    """

    def __init__(self, *, longest_look: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_look = longest_look
        self._clock = clock
        self._looked = clock()
        self._silence = 0.0
        self._first: int | None = None
        self._done = 0
        self._seconds = 0.0  # from the first steps told to the newest

    def steps(self, done: int) -> None:
        """Take in how many steps are done by now, validation batches included."""
        self._look()
        if self._first is None:
            self._first = self._done = done
        elif done > self._done:
            self._seconds += self._silence
            self._done = done
        else:
            return
        self._silence = 0.0

    def hung(self) -> str | None:
        """Return in words why the training is taken for hung; None while it may be slow."""
        self._look()
        if self._first is None:
            if self._silence < SLOWEST_START_SECONDS:
                return None
            return f"no first training step within {self._silence:.0f} s"
        told = self._done - self._first
        usual = self._seconds / told if told else 0.0
        if self._silence < max(SHORTEST_SILENCE_SECONDS, USUAL_STEPS * usual):
            return None
        return f"no training step for {self._silence:.0f} s" + (f"; one takes {usual:.2g} s" if told else "")

    def _look(self) -> None:
        now = self._clock()
        self._silence += min(now - self._looked, self._longest_look)
        self._looked = now
