"""Attention over places, after RTK: which of the student's places shall resemble a teacher's is learned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.similarity import unit
from igkd_hpo.distillation.terms import Comparison, Places

if TYPE_CHECKING:
    from torch import Tensor, nn

    from igkd_hpo.distillation.recipe import Recipe

HYPERPARAMETERS = {
    "rtk_weight": Hyperparameter(
        "Weight of attention over places, after RTK: which of them are compared is learned.",
        Role.FEATURES, high=1000, default=0.0, off=0.0, later=True),
    "rtk_keys": Hyperparameter(
        "How many of the teacher's places count in a step, those that the student resembles most; 9 or more: all.",
        Role.FEATURES, whole=True, low=1, high=9, default=3, needs=("rtk_weight",), later=True),
}  # fmt: skip

_DIMENSION = 128  # of queries and keys, as in AFD's code


def learn(places: Places, recipe: "Recipe") -> "nn.ModuleDict":
    """Return what asks and answers: linear layers on channel means, with batch normalisation, and learned positions."""
    import torch
    from torch import nn

    def projection(given: int, wanted: int = _DIMENSION) -> nn.Sequential:
        return nn.Sequential(nn.Linear(given, wanted), nn.BatchNorm1d(wanted))

    positions = [torch.empty(len(places.numbers), _DIMENSION) for _ in range(2)]
    return nn.ModuleDict(
        {
            "teacher": nn.ModuleList(projection(channels) for channels in places.teacher),
            "student": nn.ModuleList(projection(channels).append(nn.ReLU()) for channels in places.student),
            "mixing": projection(_DIMENSION, len(places.numbers) * _DIMENSION),
            "positions": nn.ParameterList(nn.init.xavier_normal_(each) for each in positions),
        }
    )


def compare(comparison: Comparison) -> "Tensor":
    """Return `representative_keys` by its weight."""
    recipe = comparison.recipe
    attention = attend(comparison.student, comparison.teacher, comparison.learned)
    distances = map_distances(comparison.student, comparison.teacher)
    return recipe.number("rtk_weight") * representative_keys(attention, distances, count=int(recipe.number("rtk_keys")))


def representative_keys(attention: "Tensor", distances: "Tensor", *, count: int) -> "Tensor":
    """Return the distance of the pairs that attention chooses, a mean over the batch and the teacher's `count` places.

    Those are the places with the least mean distance to all of the student's in this batch: a teacher's place that no
    place of the student resembles says nothing that it could learn. With all places it is AFD, but for the size of a
    distance, see `map_distances`: the published 200 times the mean over 8x8 positions is 3 here. AFD adds up the
    teacher's places, where this is their mean.

    RTK has no public code, and how it chooses is known here from its abstract alone. This is after RTK, not RTK.

    Args:
        attention: (B, T, S), for each of the teacher's T places a distribution over the student's S.
        distances: (B, T, S), 0 or above.
        count: 1 or more; T or more is all.

    Source: Yang et al. 2022, arXiv 2206.12788, on the base of AFD, Ji et al. 2021, arXiv 2102.02973.
    """
    means = distances.detach().mean(dim=(0, 2))
    kept = means.topk(min(count, len(means)), largest=False).indices
    return (attention * distances).sum(dim=2).index_select(1, kept).mean()


def attend(student: "Sequence[Tensor]", teacher: "Sequence[Tensor]", learned: "nn.ModuleDict") -> "Tensor":
    """Return for each of the teacher's places a distribution over the student's, (B, T, S).

    softmax over s of (q_t . M_t k_s + p_t . p_s) / sqrt(d): queries q of the teacher's channel means, keys k of the
    student's, a learned matrix M for each of the teacher's places, and learned positions p.
    """
    import torch
    from torch import nn

    def project(layers: str, features: "Sequence[Tensor]") -> "Tensor":
        pairs = zip(cast(nn.ModuleList, learned[layers]), features, strict=True)
        return torch.stack([layer(feature.mean(dim=(2, 3))) for layer, feature in pairs], dim=1)

    queries, keys = project("teacher", teacher), project("student", student)
    mixed = learned["mixing"](keys.flatten(0, 1)).reshape(*keys.shape[:2], len(teacher), -1)  # (B, S, T, d)
    of_teacher, of_student = cast(nn.ParameterList, learned["positions"])
    logits = torch.einsum("bstd,btd->bts", mixed, queries) + of_teacher @ of_student.T
    attention: Tensor = (logits / _DIMENSION**0.5).softmax(dim=2)
    return attention


def map_distances(student: "Sequence[Tensor]", teacher: "Sequence[Tensor]") -> "Tensor":
    """Return the squared distance of the attention maps of each pair of places, (B, T, S) in [0, 2].

    A map is the mean of the squared activations over the channels, as one vector of length 1. The student's is brought
    to the size of the teacher's: by means over areas, or by repetition. The sum over positions is taken, as
    `attention_transfer` does, where AFD's code takes their mean. Where a teacher's map is 0 all over, so is the
    distance.
    """
    import torch
    import torch.nn.functional as F

    maps = [feature.square().mean(dim=1, keepdim=True) for feature in student]

    def distances(feature: "Tensor") -> "Tensor":
        height, width = feature.shape[2:]
        wanted = unit(feature.square().mean(dim=1).flatten(1), dim=1)[:, None]  # (B, 1, H * W)
        given = torch.stack([F.adaptive_avg_pool2d(each, (height, width)).flatten(1) for each in maps], dim=1)
        return 2 * (wanted * (wanted - unit(given, dim=2))).mean(dim=2)

    return torch.stack([distances(feature) for feature in teacher], dim=1)
