"""Events: what a worker tells whoever watches it."""

from dataclasses import dataclass
from typing import Literal

from igkd_hpo.distillation.metrics import Metric, measured

Kind = Literal[
    "alive", "waiting", "claimed", "epoch", "complete", "pruned", "fail", "released", "lost", "storage", "reaped"
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened in a worker; fields that do not belong to the kind are None.

    Args:
        kind: alive (every few seconds, for the supervisor alone), waiting (nothing to claim now), claimed, epoch, how
            an attempt ended (complete, pruned, fail, released, lost), storage (the database is away; `reason` says
            how), or reaped (another worker was gone, and its trial was freed).
        trial: number.
        attempt: of the trial.
        control: name, when the trial is one.
        epoch: epochs finished.
        accuracy: on validation, a fraction, in the study's `metric`.
        images_per_second: while training.
        memory: bytes that the trial process holds after the epoch; None for an epoch of an earlier attempt.
        device_memory: bytes taken on its GPU, by whatever runs there; `device_memory_total` is what the GPU has.
        device: for example cpu or cuda:0.
        reason: why, in words.
    """

    kind: Kind
    trial: int | None = None
    attempt: int | None = None
    control: str | None = None
    epoch: int | None = None
    accuracy: float | None = None
    metric: Metric = "accuracy"
    images_per_second: float | None = None
    memory: int | None = None
    device_memory: int | None = None
    device_memory_total: int | None = None
    device: str | None = None
    reason: str | None = None

    def for_people(self) -> str:
        """Return the event as a line of a log."""
        accuracy = "" if self.accuracy is None else f" {measured(self.accuracy, self.metric)}"
        epoch = "" if self.epoch is None else f" after epoch {self.epoch}"
        why = f": {self.reason}" if self.reason else ""
        if self.trial is None:
            return f"{self.kind.replace('_', ' ')}{why}"
        which = f"trial {self.trial}" + (f" ({self.control})" if self.control else "")
        if self.kind == "epoch":
            return f"{which} epoch {self.epoch}:{accuracy}"
        again = f", attempt {self.attempt}" if self.attempt and self.attempt > 1 else ""
        return f"{which}{again} {self.kind.replace('_', ' ')}{epoch}{accuracy}{why}"
