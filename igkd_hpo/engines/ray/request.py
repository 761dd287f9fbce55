"""What one worker asks of a cluster, and what room there is for it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from igkd_hpo.errors import UsageError
from igkd_hpo.words import byte_size, counted

Resources = Mapping[str, float]
"""What a node has, by Ray's names: CPU, GPU, memory (bytes)."""

_UNIT = 1e-4  # Ray counts in ten-thousandths


@dataclass(frozen=True, kw_only=True)
class Request:
    """A share of a node for one worker.

    Args:
        cpus: cores, and threads of its trials.
        gpus: at most 1, for a trial trains on one; a fraction is a share of one GPU that Ray counts and does not limit.
        memory: bytes, by which Ray places; None for none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus), ("memory", self.memory or 0)):
            if not 0 <= value < math.inf:
                raise UsageError(f"--{name}-per-worker {value:g} is no share of a node; give 0 or more")
        if self.gpus > 1:
            raise UsageError(
                f"--gpus-per-worker {self.gpus:g} is more than 1, and a trial trains on one; give 1 or less"
            )
        if not self.cpus and not self.gpus:
            raise UsageError("--cpus-per-worker 0 without a GPU puts every worker on one node; give 1 or more")

    def __str__(self) -> str:
        """Name what is asked for: 1 CPU, 0.25 GPU, 3 GiB of memory."""
        parts = [f"{self.cpus:g} CPU", f"{self.gpus:g} GPU" if self.gpus else ""]
        return ", ".join(filter(None, [*parts, f"{byte_size(self.memory)} of memory" if self.memory else ""]))

    @property
    def threads(self) -> int:
        """The threads of each trial."""
        return max(1, int(self.cpus))

    def fit(self, node: Resources) -> int:
        """Return how many such workers a node has room for when it is empty; shares of one GPU are of one GPU."""
        room = [
            math.floor((node.get(name, 0.0) + _UNIT / 2) / asked)
            for name, asked in (("CPU", self.cpus), ("memory", self.memory or 0))
            if asked
        ]
        if self.gpus:
            room.append(math.floor(node.get("GPU", 0.0)) * math.floor((1 + _UNIT / 2) / self.gpus))
        return min(room)

    def room(self, nodes: Iterable[Resources]) -> int:
        """Return how many such workers the empty cluster has room for. Raises UsageError where it is none."""
        nodes = list(nodes)
        if total := sum(self.fit(node) for node in nodes):
            return total
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0}
        for name, wanted in asked.items():
            most = max((node.get(name, 0.0) for node in nodes), default=0.0)
            if most + _UNIT / 2 < wanted:
                shown = [byte_size(value) if name == "memory" else f"{value:g}" for value in (wanted, most)]
                raise UsageError(
                    f"--{name.lower()}{'' if name == 'memory' else 's'}-per-worker {shown[0]}: the largest of "
                    f"{counted(len(nodes), 'node')} has {shown[1]}; ask for less, or add a node"
                )
        raise UsageError(f"no node of the cluster has {self} at once; ask for less, or add a node")


def parse_memory(text: str) -> int:
    """Read a size such as 3GiB, 500MB or 2000000000, in bytes. Raises UsageError."""
    number = text.strip().rstrip("BbiIKkMmGgTt ")
    unit = text.strip()[len(number) :].strip().lower()
    units = {"": 1, "b": 1} | {f"{p}b": 1000**n for n, p in enumerate("kmgt", 1)}
    units |= {f"{p}ib": 1024**n for n, p in enumerate("kmgt", 1)}
    try:
        return int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(f"--memory-per-worker {text!r} is no size; write for example 3GiB") from None
