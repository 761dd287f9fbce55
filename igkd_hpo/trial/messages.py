"""What a trial says while it runs, in the order of its life; plain values that a process without torch can read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.provenance import Execution
from igkd_hpo.distillation.metrics import EpochMetrics, MemoryUse


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Other trials hold the device; said again every moment."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The student's cost, and its relative excess over each limit that was measured, by the limit's name."""

    cost: StudentCost
    excess: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """The student is beyond a limit and is not trained: the last message."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Overlays:
    """A picture of training images with their overlays."""

    png: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Started:
    """The network is built, and its training begins or goes on.

    Args:
        pid: of the process that trains.
        device: as torch names it.
    """

    pid: int
    device: str
    execution: Execution


@dataclass(frozen=True, kw_only=True)
class StepsDone:
    """How many steps are done so far, validation batches included; said every few seconds while there are more."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """An epoch has ended, and its checkpoint is written; `memory` is None for one of an earlier attempt."""

    metrics: EpochMetrics
    memory: MemoryUse | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """All epochs are done: the last message."""

    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Diverged:
    """The loss of this epoch is not finite: the last message."""

    epoch: int


@dataclass(frozen=True, kw_only=True)
class OutOfMemory:
    """Memory ran out: the last message.

    Args:
        too_large: the trial had the device to itself, and the memory that ran out is the device's.
    """

    reason: str
    too_large: bool


@dataclass(frozen=True, kw_only=True)
class Crashed:
    """The trial cannot go on, and would not the next time: the last message.

    Args:
        traceback: the end of it; empty where the reason says all.
    """

    reason: str
    traceback: str


Message = (
    Waiting
    | Measured
    | Infeasible
    | Overlays
    | Started
    | StepsDone
    | EpochDone
    | Trained
    | Diverged
    | OutOfMemory
    | Crashed
)
