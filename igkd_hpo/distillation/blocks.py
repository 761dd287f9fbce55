"""A network taken apart at its block boundaries: the features that a block gives, and the logits from there on.

Blocks of the same number have the same resolution in a teacher and its student, since a student is cut from the end.
"""

from collections.abc import Collection

from torch import Tensor, nn

from igkd_hpo.distillation.architectures import ARCHITECTURES, Taps
from igkd_hpo.distillation.models import Network

Features = dict[int, Tensor]  # by block number, from 0, or by stride: float (B, C, H, W)


_FUNCTIONS = {name: each.taps for name, each in ARCHITECTURES.items() if each.taps is not None}


class ByBlock:
    """A network that gives features by block number."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def channels(self, block: int) -> int:
        """Return how many channels the block gives."""
        return channels(self._network, block)

    def run(self, pixels: Tensor, blocks: Collection[int], *, logits: bool = True) -> tuple[Features, Tensor | None]:
        """Return the blocks' features of pixels (B, 3, H, W) in [0, 1] and, if wanted, the logits of the same run."""
        features, deepest = forward_to(self._network, pixels, blocks), max(blocks)
        return features, logits_from(self._network, features[deepest], deepest) if logits else None


def share_blocks(student: Network, teacher: Network) -> bool:
    """Return whether blocks of the same number can be compared: those of one kind of network, which is known."""
    return any(
        take_apart(student.body) is not None and take_apart(teacher.body) is not None
        for take_apart in _FUNCTIONS.values()
    )


def _taps(network: Network) -> Taps:
    for take_apart in _FUNCTIONS.values():
        if (taps := take_apart(network.body)) is not None:
            return taps
    kind, names = type(network.body).__name__, ", ".join(_FUNCTIONS)
    raise ValueError(f"the blocks of {kind} are not known; only those of {names} are")


def last_common_block(student: Network, teacher: Network) -> int:
    """Return the number of the deepest block that both have. Raises ValueError where those of one are not known."""
    return min(len(_taps(student).blocks), len(_taps(teacher).blocks)) - 1


def channels(network: Network, block: int) -> int:
    """Return how many channels the block gives."""
    return _taps(network).channels[block]


def forward_to(network: Network, pixels: Tensor, blocks: Collection[int]) -> Features:
    """Return the blocks' features of pixels (B, 3, H, W) in [0, 1]; runs no further than the deepest of them."""
    x = (pixels - network.mean) / network.std
    features = {}
    for number, block in enumerate(_taps(network).blocks[: max(blocks) + 1]):
        x = block(x)
        if number in blocks:
            features[number] = x
    return features


def logits_from(network: Network, feature: Tensor, block: int) -> Tensor:
    """Return the logits (B, K) that follow from the features of `block`: the later blocks, the pooling, the last layer.

    After `forward_to` this is the network itself, bit for bit.
    """
    taps = _taps(network)
    return taps.head(taps.blocks[block + 1 :](feature))


def first_blocks(network: Network, count: int) -> nn.Module:
    """Return the first `count` blocks of a network, the same as in it; all, where it has fewer."""
    return _taps(network).blocks[:count]


def copy_prefix(student: Network, teacher: Network) -> None:
    """Let the student begin as the teacher's first blocks, batch statistics included; its last layer stays as it is.

    Blocks of different widths raise ValueError.

    Source: Spirit Distillation, arXiv 2103.13733.
    """
    for number in range(last_common_block(student, teacher) + 1):
        try:
            _taps(student).blocks[number].load_state_dict(_taps(teacher).blocks[number].state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"block {number} gives {channels(student, number)} channels in the student and "
                f"{channels(teacher, number)} in the teacher; init teacher_prefix needs the teacher's width"
            ) from error
