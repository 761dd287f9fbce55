"""Structured knowledge transfer: the teacher's features place by place, and how its places go together."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, cast

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.similarity import cosine_distance, standardize
from igkd_hpo.distillation.terms import Comparison, Places
from igkd_hpo.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from igkd_hpo.distillation.recipe import Recipe

HYPERPARAMETERS = {
    "skt_intra_weight": Hyperparameter(
        "Weight of SKT's term within places: the direction of the features at each position.",
        Role.FEATURES, high=1000, default=0.0, off=0.0, later=True),
    "skt_inter_weight": Hyperparameter(
        "Weight of SKT's term between places: which channels of two places are active together.",
        Role.FEATURES, high=1000, default=0.0, off=0.0, later=True),
}  # fmt: skip


def check_pairs(places: Sequence[int]) -> None:
    """Raise UsageError where there are no two places to compare."""
    if len(places) < 2:
        raise UsageError(
            f"student and teacher have features at {', '.join(map(str, places))} alone in common, and "
            "skt_inter_weight compares pairs of places; write skt_inter_weight: 0, or take another network"
        )


def learn(places: Places, recipe: "Recipe") -> "nn.ModuleDict":
    """Return what brings the student's channels to the teacher's: a 1x1 convolution where they differ.

    Raises UsageError, see `check_pairs`.
    """
    from torch import nn

    if recipe.number("skt_inter_weight") > 0:
        check_pairs(places.numbers)

    def adapter(given: int, wanted: int) -> nn.Module:
        return nn.Identity() if given == wanted else nn.Conv2d(given, wanted, 1, bias=False)

    pairs = zip(places.student, places.teacher, strict=True)
    return nn.ModuleDict({"adapters": nn.ModuleList(adapter(given, wanted) for given, wanted in pairs)})


def compare(comparison: Comparison) -> "Tensor":
    """Return both terms by their weights; one whose weight is 0 costs nothing."""
    from torch import nn

    adapters = cast(nn.ModuleList, comparison.learned["adapters"])
    student = [adapt(feature) for adapt, feature in zip(adapters, comparison.student, strict=True)]
    weights = [comparison.recipe.number(name) for name in HYPERPARAMETERS]
    terms = [
        weight * term(student, comparison.teacher)
        for weight, term in zip(weights, (intra_layer, inter_layer), strict=True)
        if weight > 0
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def intra_layer(student: "Sequence[Tensor]", teacher: "Sequence[Tensor]") -> "Tensor":
    """Return 1 - the cosine over the channels, a mean over batch, positions and places, in [0, 2].

    Features are (B, C, H, W), place by place, with the teacher's channels; of two sizes, both are brought to the
    smaller one. The published code adds up all positions of all images, so that its 0.5 grows with both; here a weight
    means the same for every batch size and resolution. Where the teacher's features are 0 the distance is 0.

    Source: SKT, Liu et al. 2020, arXiv 2003.10120, intra-layer pattern transfer.
    """
    import torch

    from igkd_hpo.distillation.taps import to_same_size

    pairs = (to_same_size(*pair) for pair in zip(student, teacher, strict=True))
    return torch.stack([cosine_distance(given, wanted, dim=1) for given, wanted in pairs]).mean()


def inter_layer(student: "Sequence[Tensor]", teacher: "Sequence[Tensor]") -> "Tensor":
    """Return the squared error of the correlations between the channels of two places, a mean over all pairs of places.

    G = X Y^T / (H * W), with X and Y the features of two places at one size, each channel of each image brought to mean
    0 and deviation 1 over its positions: (B, C, D), each number in [-1, 1]. All maps of both networks are brought to
    the smallest size, by the largest value of each area. The error is a mean over batch, channels and pairs, in [0, 4].
    It takes memory for batch * channels * channels numbers for each pair. A map of one position has no deviation: 0.

    The published code compares the first image of a batch alone, which is all there is in its batches of one.

    Args:
        student: (B, C, H, W), two places or more, with the teacher's channels, as `teacher`'s.

    Source: SKT, Liu et al. 2020, arXiv 2003.10120, inter-layer relation transfer.
    """
    import torch
    import torch.nn.functional as F

    height, width = (min(feature.shape[axis] for feature in (*student, *teacher)) for axis in (2, 3))

    def relations(features: "Sequence[Tensor]") -> "list[Tensor]":
        pooled = (F.adaptive_max_pool2d(feature, (height, width)).flatten(2) for feature in features)
        even = [standardize(feature, dim=2) for feature in pooled]
        return [torch.einsum("bcp,bdp->bcd", *pair) / (height * width) for pair in combinations(even, 2)]

    pairs = zip(relations(student), relations(teacher), strict=True)
    return torch.stack([(given - wanted).square().mean() for given, wanted in pairs]).mean()
