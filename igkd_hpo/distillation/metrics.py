"""Measurements of a training, as plain values that a process without torch can read."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The results of one finished epoch."""

    epoch: int  # how many are finished, this one included
    train_loss: float  # mean over the epoch's steps
    validation_accuracy: float  # a fraction
    validation_loss: float  # cross-entropy
    learning_rate: float  # of the epoch's last step
    images_per_second: float  # trained on, over all of the epoch's time
    seconds: float  # validation included


class MemoryUse(NamedTuple):
    """Bytes in use: resident by this process; on a GPU by all processes together, and how many it has."""

    process: int
    device: int | None = None
    device_total: int | None = None
