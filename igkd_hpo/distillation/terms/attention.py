"""Attention transfer: the student is to be active where its teacher is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.similarity import cosine_distance

if TYPE_CHECKING:
    from torch import Tensor

HYPERPARAMETERS = {
    "attention_weight": Hyperparameter(
        "Weight of attention transfer, which is added to the loss.", Role.FEATURES, high=1000, default=0.0, off=0.0),
    "attention_depths": Hyperparameter(
        "Where attention is compared: middle (the paper's block, or stride 8), last, or stages (each resolution).",
        Role.FEATURES, words=("middle", "last", "stages"), default="middle", off="middle",
        needs=("attention_weight",)),
}  # fmt: skip

_ENDS_OF_STAGES = (3, 6, 13)  # the last blocks of each resolution but the lowest
_MIDDLES = (9, 4, 2, 0)  # the paper's blocks: 19 // 2, 19 // 4, 19 // 8, 19 // 20


def attention_blocks(depths: str, last: int) -> tuple[int, ...]:
    """Return the blocks that are compared, of a student and a teacher that share the blocks 0 to `last`, 1 or more.

    "middle" is the one that the paper takes for each length of the student: block 9 of the 4.1x one. "last" is the
    deepest, "stages" the last of each resolution. Another word raises ValueError.
    """
    match depths:
        case "middle":
            return (next(block for block in _MIDDLES if block < last),)
        case "last":
            return (last,)
        case "stages":
            return (*(block for block in _ENDS_OF_STAGES if block < last), last)
    raise ValueError(f"attention_depths is {depths!r}; it must be middle, last or stages")


def attention_strides(depths: str, strides: Sequence[int]) -> tuple[int, ...]:
    """Return the strides that are compared, of those that a student and a teacher have in common, ascending.

    "middle" is 8 or the nearest below, else the least; "last" is the deepest, "stages" are all. Another word raises
    ValueError.
    """
    match depths:
        case "middle":
            return (max((stride for stride in strides if stride <= 8), default=strides[0]),)
        case "last":
            return (strides[-1],)
        case "stages":
            return tuple(strides)
    raise ValueError(f"attention_depths is {depths!r}; it must be middle, last or stages")


def attention_map(features: "Tensor") -> "Tensor":
    """Return where a network is active: the mean of the squared features (B, C, H, W) over the channels, (B, H, W)."""
    return features.square().mean(dim=1)


def attention_transfer(
    student: "Mapping[int, Tensor]", teacher: "Mapping[int, Tensor]", places: Sequence[int]
) -> "Tensor":
    """Return the squared distance of attention maps brought to length 1: 0 to 2, a mean over batch and places.

    The sum over positions is taken, so that a weight means the same at every resolution. Others take the mean over
    H * W, and a weight of 1000: that is 1000 / (H * W) here, 16 at 8x8. The paper's 0.8 of the mean at 8x8 is 0.0125
    here, too little to matter.

    Maps are (B, H, W), by place, as `attention_map` makes them; of two sizes, both are brought to the smaller one.

    Source: Zagoruyko and Komodakis 2017, arXiv 1612.03928, equation 2.
    """
    import torch

    from igkd_hpo.distillation.taps import to_same_size

    def distance(mine: "Tensor", others: "Tensor") -> "Tensor":
        given, wanted = to_same_size(mine, others)
        # Of vectors of length 1, the squared distance is twice 1 - cosine.
        return 2 * cosine_distance(given.flatten(1), wanted.flatten(1), dim=1)

    return torch.stack([distance(student[place], teacher[place]) for place in places]).mean()
