"""Networks that a first study may have: which are looked at, and what is known of them on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.space import Value
from igkd_hpo.starting.weights import Place

BUILT_IN = "mobilenet_v2"
FROM_LIBRARIES = 64
"""Pixels a side, from which networks are taken that reduce an image 32 times; below, the built-in one."""
_PHOTO_STUDENTS = (
    "timm/lcnet_050",
    "timm/mobilenetv4_conv_small_050",
    "torchvision/shufflenet_v2_x0_5",
    "timm/starnet_s050",
    "timm/mobilenetv3_small_100",
    "timm/mobilenetv4_conv_small",
)
MOST_STAGES_REMOVED = 2
"""Of a network from a library. On 2,363 photographs from shops one without two of them, of 24 thousand parameters, was
better than a whole one of 640 thousand; see docs/experiments.md."""
_SMALL_STUDENTS = ((5, 1.0), (5, 0.5), (9, 0.5), (12, 0.5), (12, 0.25), (15, 0.25))  # layers_removed, width
_GIVEN_TEACHERS = {
    "cpu": ("timm/tf_efficientnet_lite0", "torchvision/mobilenet_v2"),
    "cuda": ("torchvision/resnet50", "timm/tf_efficientnet_lite0", "torchvision/mobilenet_v2"),
}
_OWN_TEACHERS = ((1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.5, 0.5), (0.25, 0.5))  # width, side as a share of the image's


class Network(NamedTuple):
    """A network at a size: its name, its knobs in the order of their names, and the pixels a side of its input."""

    architecture: str
    knobs: tuple[tuple[str, Value], ...]
    side: int

    @property
    def shown(self) -> str:
        """Its name and knobs, for people."""
        knobs = [f"{name} {value:g}" for name, value in self.knobs if not isinstance(value, str) and value]
        return ", ".join([self.architecture, *knobs])


class StepTime(NamedTuple):
    """Seconds for an image: in a training step, and in a forward pass alone."""

    training: float
    forward: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine.

    Args:
        device: cpu, or the name of the GPU.
        cores: that this process may use.
        free_bytes: of its memory.
        load: processes that wanted a core in the last minute, for each core that the machine has.
    """

    device: str
    cores: int
    free_bytes: int
    load: float = 0.0

    @property
    def is_cpu(self) -> bool:
        """Whether there is no GPU to train on."""
        return self.device == "cpu"

    @property
    def is_busy(self) -> bool:
        """Whether so much runs on it that what is measured is slower than it could be."""
        return self.load > 1

    @property
    def kind(self) -> str:
        """The kind of device, as torch calls it: cpu or cuda."""
        return "cpu" if self.is_cpu else "cuda"

    @property
    def shown(self) -> str:
        """The device in words that fit behind `on`."""
        return f"{self.cores} CPU core{'s' * (self.cores != 1)}" if self.is_cpu else self.device


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is known of networks, for a number of classes.

    Args:
        costs: of those that can be built here.
        times: of those that were timed.
        weights: where published ones can be had, by architecture.
    """

    costs: Mapping[Network, StudentCost]
    times: Mapping[Network, StepTime] = field(default_factory=dict)
    weights: Mapping[str, Place] = field(default_factory=dict)

    def time(self, network: Network) -> StepTime | None:
        """Return the time of a network: as measured, or in proportion to its multiply-adds from one that was timed."""
        if network in self.times:
            return self.times[network]
        alike = [other for other in self.times if other.architecture == network.architecture]
        if not alike or network not in self.costs:
            return None
        other = min(alike, key=lambda other: abs(other.side - network.side))
        ratio = self.costs[network].macs / self.costs[other].macs
        return StepTime(*(ratio * seconds for seconds in self.times[other]))


def students_of(side: int) -> list[Network]:
    """Return the students that suit images of `side` pixels, those that are preferred first."""
    if side >= FROM_LIBRARIES:
        return [
            Network(name, (("stages_removed", removed),), side)
            for removed in range(MOST_STAGES_REMOVED + 1)
            for name in _PHOTO_STUDENTS
        ]
    return [
        Network(BUILT_IN, (("layers_removed", removed), ("width", width)), side) for removed, width in _SMALL_STUDENTS
    ]


def given_teachers(machine: Machine) -> tuple[str, ...]:
    """Return the teachers that are worth having where their weights can be had, those that are preferred first."""
    return _GIVEN_TEACHERS[machine.kind]


def own_teachers(side: int) -> list[Network]:
    """Return the teachers that can be trained from random weights on images of `side` pixels, the best first."""
    return [
        Network(BUILT_IN, (("layers_removed", 0), ("width", width)), max(16, round(share * side / 8) * 8))
        if share < 1
        else Network(BUILT_IN, (("layers_removed", 0), ("width", width)), side)
        for width, share in _OWN_TEACHERS
    ]
