"""Agreement of two attribution maps of one image: how many of their brightest pixels they share, and with whom.

How alike they order all pixels says `attribution.rank_correlation`.
"""

import torch
from torch import Tensor

TOP_SHARE = 0.1
"""Share of the pixels that counts as the brightest."""


def top_overlap(maps: Tensor, others: Tensor) -> Tensor:
    """Return the share of each map's brightest tenth that is in the other's brightest tenth too, float64 (B,).

    Chance gives 0.1. Pixels that are equally bright at the edge of the tenth share the places that are left, each with
    a part of one: a map has an overlap of 1 with itself, and one of about 0.1 with a constant map.

    Args:
        maps, others: float (B, H, W), on one device; a tenth is one pixel or more.
    """
    shared = torch.minimum(_in_top(maps.flatten(1)), _in_top(others.flatten(1)))
    return shared.sum(dim=1) / _top_size(shared.shape[1])


def shuffled(count: int, generator: torch.Generator) -> Tensor:
    """Return for each of `count` images, 2 or more, the number of another one, int64 (count,): none keeps its own."""
    order = torch.randperm(count, generator=generator)
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others


def _top_size(pixels: int) -> int:
    return max(1, round(TOP_SHARE * pixels))


def _in_top(values: Tensor) -> Tensor:
    """Return how far each of (B, P) values is among the largest, in [0, 1]; they add up to the number of places."""
    size = _top_size(values.shape[1])
    edge = values.topk(size, dim=1).values[:, -1:]
    above, at_edge = values > edge, values == edge
    left = size - above.sum(dim=1, keepdim=True)
    return above.double() + at_edge.double() * left / at_edge.sum(dim=1, keepdim=True)
