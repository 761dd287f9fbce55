"""Measurements of a training, as plain values that a process without torch can read."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from igkd_hpo.words import percent

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1"]
METRICS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
"""Metrics that a study can be judged by, and their names for people."""
COMMON_CLASS = 0.9
"""Share of a class that makes accuracy blind: always guessing it is right as often."""
UNEVEN_CLASSES = 10
"""Images of the largest class to those of the smallest, from which on accuracy hardly counts that."""

P_VALUE = 0.001
"""One-sided: of a thousand teachers that guess, one would be taken for better."""


def measured(value: float, metric: Metric) -> str:
    """Write a value of a metric by its name: 97.60 %, which is accuracy, or 97.60 % balanced accuracy."""
    return percent(value) if metric == "accuracy" else f"{percent(value)} {METRICS[metric]}"


def heading(metric: Metric) -> str:
    """Write a metric's name as it begins a line: Balanced accuracy."""
    return METRICS[metric][0].upper() + METRICS[metric][1:]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The results of one finished epoch."""

    epoch: int  # how many are finished, this one included
    train_loss: float  # mean over the epoch's steps
    validation_accuracy: float  # a fraction; the study's metric, by the name that it has in every record
    validation_loss: float  # cross-entropy
    learning_rate: float  # of the epoch's last step
    images_per_second: float  # trained on, over all of the epoch's time
    seconds: float  # validation included


class MemoryUse(NamedTuple):
    """Bytes in use: resident by this process; on a GPU by all processes together, and how many it has."""

    process: int
    device: int | None = None
    device_total: int | None = None
