"""A MobileNet-V2 taken apart at its block boundaries: what a block gives, and the logits from there on.

Blocks of the same number have the same resolution in a teacher and its student, since a student is cut from the end.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNetV2

from igkd_hpo.distillation.models import Network

Features = dict[int, Tensor]  # by block number, from 0: float (B, C, H, W)


def _body(network: Network) -> MobileNetV2:
    if not isinstance(network.body, MobileNetV2):
        raise ValueError(f"the blocks of {type(network.body).__name__} are not known; only those of mobilenet_v2 are")
    return network.body


def _blocks(network: Network) -> nn.Sequential:
    blocks: nn.Sequential = _body(network).features
    return blocks


def last_common_block(student: Network, teacher: Network) -> int:
    """Return the number of the deepest block that both have. Raises ValueError where one is no MobileNet-V2."""
    return min(len(_blocks(student)), len(_blocks(teacher))) - 1


def channels(network: Network, block: int) -> int:
    """Return how many channels the block gives."""
    given = _blocks(network)[block].out_channels
    assert isinstance(given, int), "torchvision's blocks know their channels"
    return given


def forward_to(network: Network, pixels: Tensor, blocks: Sequence[int]) -> Features:
    """Return what the blocks give for pixels (B, 3, H, W) in [0, 1]; runs no further than the deepest of them."""
    x = (pixels - network.mean) / network.std
    features = {}
    for number, block in enumerate(_blocks(network)[: max(blocks) + 1]):
        x = block(x)
        if number in blocks:
            features[number] = x
    return features


def logits_from(network: Network, feature: Tensor, block: int) -> Tensor:
    """Return the logits (B, K) that follow from what `block` gives: the blocks after it, the pooling, the last layer.

    After `forward_to` this is the network itself, bit for bit.
    """
    x = _blocks(network)[block + 1 :](feature)
    logits: Tensor = _body(network).classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
    return logits


def copy_prefix(student: Network, teacher: Network) -> None:
    """Let the student begin as the teacher's first blocks, batch statistics included; its last layer stays as it is.

    Raises:
        ValueError: blocks of different widths.

    Source: Spirit Distillation, arXiv 2103.13733.
    """
    for number in range(last_common_block(student, teacher) + 1):
        try:
            _blocks(student)[number].load_state_dict(_blocks(teacher)[number].state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"block {number} gives {channels(student, number)} channels in the student and "
                f"{channels(teacher, number)} in the teacher; init teacher_prefix needs the teacher's width"
            ) from error
