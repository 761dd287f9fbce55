"""Messages of a running trial, in the order of its life; plain values that a process without torch can read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.provenance import Execution
from igkd_hpo.distillation.class_table import ClassTable
from igkd_hpo.distillation.metrics import EpochMetrics, MemoryUse


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Other trials hold the device; repeated until it is free."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The student's cost, and its relative excess over each limit, by the limit's name; see `config.cost.excess`."""

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
    """The network is built, and the process `pid` begins or goes on to train it on `device` (torch's name)."""

    pid: int
    device: str
    execution: Execution


@dataclass(frozen=True, kw_only=True)
class StepsDone:
    """The number of steps so far, validation batches included; repeated every few seconds while it grows."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """An epoch has ended, and its checkpoint is written; `memory` is None for one of an earlier attempt."""

    metrics: EpochMetrics
    memory: MemoryUse | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """All epochs are done: the last message; `accuracy` is the study's metric, `classes` what became of each."""

    accuracy: float
    classes: ClassTable | None = None


@dataclass(frozen=True, kw_only=True)
class Diverged:
    """The loss of this epoch is not finite: the last message."""

    epoch: int


@dataclass(frozen=True, kw_only=True)
class OutOfMemory:
    """Memory ran out: the last message; `too_large` if it was the device's, and the trial had that to itself."""

    reason: str
    too_large: bool


@dataclass(frozen=True, kw_only=True)
class Crashed:
    """The trial cannot go on, nor would it next time: the last message; `traceback` is empty if the reason says all."""

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
