"""The search for how many trials side by side pay on a device, for `--workers auto`.

The middle configuration is trained on the study's own images by 1, 2, 4, ... processes at once, each as a trial process
is one, until twice as many are not worth it, or memory, cores or time end it.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from igkd_hpo.errors import UsageError
from igkd_hpo.words import byte_size

WORTH = 1.05
"""Twice the trials must give this many times the images per second: fewer side by side leave the sampler more to
learn from before each of its choices."""
BUDGET_SECONDS = {"cpu": 12.0, "cuda": 45.0}
"""After which no further level begins; torch's import is not counted, but setting up CUDA for each trial is."""
_USABLE = 0.9  # of what is free: other configurations are larger than the middle one


@dataclass(frozen=True, kw_only=True)
class Level:
    """So many trials side by side on one device, and the images per second that all of them together trained on."""

    trials: int
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The number of trials that pay, and what it was measured by.

    Args:
        devices: to spread workers over; the first one was measured.
        per_device: how many trials side by side pay on one.
        levels: what was measured.
        why: what ended it, in words.
        trial_bytes: what a trial takes of the device's memory; on a CPU of the host's, its worker included.
        free_bytes: of that memory, before.
    """

    devices: tuple[str, ...]
    per_device: int
    levels: tuple[Level, ...]
    why: str
    trial_bytes: int
    free_bytes: int

    @property
    def workers(self) -> int:
        """How many workers pay on all devices together."""
        return self.per_device * len(self.devices)

    @property
    def gain(self) -> float:
        """Images per second of all trials on one device, over those of one trial alone."""
        chosen = next(level for level in self.levels if level.trials == self.per_device)
        return chosen.images_per_second / self.levels[0].images_per_second

    def __str__(self) -> str:
        """Return one line for people."""
        measured = ", ".join(f"{level.trials} trained {level.images_per_second:,.0f} images/s" for level in self.levels)
        each = f"{self.per_device} on each of {len(self.devices)} GPUs" if len(self.devices) > 1 else self.devices[0]
        return (
            f"workers: {self.workers} ({each}); measured side by side on {self.devices[0]}: {measured}; {self.why}; "
            f"a trial takes {byte_size(self.trial_bytes)} of {byte_size(self.free_bytes)}"
        )


class Trainings(Protocol):
    """Trainings side by side on one device, and what is known of it once one has run there."""

    trial_bytes: int
    free_bytes: int

    def measure(self, trials: int) -> float | None:
        """Return the images per second of so many together; None when their memory ran out."""
        ...


def find_worthwhile(trainings: Trainings, devices: tuple[str, ...], cores: int) -> Probe:
    """Double the trials side by side on the first device as long as that pays, and is possible. Raises UsageError."""
    begun = time.monotonic()
    most = max(1, cores // len(devices))  # a trial on a GPU keeps a core busy too
    levels: list[Level] = []
    pays, trials = 0, 1
    while True:
        rate = trainings.measure(trials)
        if rate is None:
            why = f"{trials} ran out of memory"
            break
        levels.append(Level(trials=trials, images_per_second=rate))
        if pays and rate < WORTH * levels[-2].images_per_second:
            why = f"{trials} are not worth it"
            break
        pays = trials
        fitting = int(_USABLE * trainings.free_bytes // trainings.trial_bytes)
        if trials >= most:
            why = f"there are {cores} cores"
            break
        if trials >= fitting:
            why = "there is no memory for more"
            break
        if time.monotonic() - begun > BUDGET_SECONDS[devices[0].partition(":")[0]]:
            why = "more would have taken too long to measure"
            break
        trials = min(2 * trials, most, fitting)
    if not pays:
        raise UsageError("--workers auto: not even one trial fits into the memory here; lower batch_size or width")
    return Probe(
        devices=devices,
        per_device=pays,
        levels=tuple(levels),
        why=why,
        trial_bytes=trainings.trial_bytes,
        free_bytes=trainings.free_bytes,
    )
