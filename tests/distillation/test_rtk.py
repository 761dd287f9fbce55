"""Attention over places: the chosen distances by hand, and attention against its formula place by place."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.terms import Comparison, Places
from igkd_hpo.distillation.terms.rtk import attend, compare, learn, map_distances, representative_keys


def feature(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT = [feature(0, 4, 2, 4, 4), feature(1, 4, 3, 2, 2)]
TEACHER = [feature(2, 4, 5, 4, 4), feature(3, 4, 2, 2, 2)]
PLACES = Places(numbers=(4, 8), student=(2, 3), teacher=(5, 2))


@pytest.fixture
def learned(recipe: Callable[..., Recipe]) -> nn.ModuleDict:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return learn(PLACES, recipe()).double()


@pytest.mark.parametrize(("count", "expected"), [(1, 0.45), (2, 0.5375), (3, 0.791667), (9, 0.791667)])
def test_the_places_that_the_student_resembles_most_by_hand(count: int, expected: float) -> None:
    # Two images, three places of the teacher, two of the student. Mean distances of the teacher's places:
    # (0.2 + 0.6 + 0.4 + 1.2) / 4 = 0.6, then 1.5 and 0.75: the first is nearest, the last is next.
    # By attention, of the first: 0.75 * 0.2 + 0.25 * 0.6 = 0.3 and 0.75 * 0.4 + 0.25 * 1.2 = 0.6, a mean of 0.45;
    # of the second 0.7 * 1 + 0.3 * 2 = 1.3, of the last 0.75 * 0.5 + 0.25 * 1 = 0.625, in both images.
    # (0.45 + 0.625) / 2 = 0.5375, (0.45 + 0.625 + 1.3) / 3 = 0.791667
    distances = torch.tensor(
        [[[0.2, 0.6], [1.0, 2.0], [0.5, 1.0]], [[0.4, 1.2], [1.0, 2.0], [0.5, 1.0]]], dtype=torch.float64
    )
    attention = torch.tensor([[[0.75, 0.25], [0.7, 0.3], [0.75, 0.25]]] * 2, dtype=torch.float64)
    assert representative_keys(attention, distances, count=count).item() == pytest.approx(expected, abs=1e-6)


def test_distances_of_maps_by_hand() -> None:
    # The teacher's squares (9, 0): (1, 0). The student's first place: squares (9, 16), of length sqrt(337):
    # (0.490261, 0.871576), a squared distance of 1.019478. Its second, of one position: repeated, (1, 1) / sqrt(2),
    # of 2 - sqrt(2) = 0.585786. Its third, of 2x4 positions: areas of means 1 and 0, which is the teacher's map: 0.
    teacher = torch.tensor([[[[3.0, 0.0]], [[-3.0, 0.0]]]], dtype=torch.float64)
    student = [
        torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64),
        torch.tensor([[[[-5.0]]]], dtype=torch.float64),
        torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [1.0, 2**0.5, 0.0, 0.0]]]], dtype=torch.float64),
    ]
    expected = torch.tensor([[[1.019478, 0.585786, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(map_distances(student, [teacher]), expected, atol=1e-6, rtol=0)
    assert not map_distances(student, [torch.zeros_like(teacher)]).any(), "a teacher that is silent asks for nothing"


def test_attention_is_its_formula_place_by_place(learned):
    """softmax over s of (q_t . M_t k_s + p_t . p_s) / sqrt(128), with loops in the place of batched products."""
    found = attend(STUDENT, TEACHER, learned)
    assert found.shape == (4, 2, 2)
    queries = [layer(f.mean((2, 3))) for layer, f in zip(learned["teacher"], TEACHER, strict=True)]
    keys = [layer(f.mean((2, 3))) for layer, f in zip(learned["student"], STUDENT, strict=True)]
    assert min(key.min() for key in keys) == 0, "keys are rectified"
    of_teacher, of_student = learned["positions"]
    # Batch normalisation sees the keys of all places and images as one batch of eight, image by image.
    mixed = learned["mixing"](torch.stack([keys[s][b] for b in range(4) for s in range(2)]))
    for b in range(4):
        for t in range(2):
            scores = []
            for s in range(2):
                asked = queries[t][b] @ mixed[2 * b + s][128 * t : 128 * (t + 1)] + of_teacher[t] @ of_student[s]
                scores.append(math.exp(asked.item() / math.sqrt(128)))
            expected = torch.tensor([score / sum(scores) for score in scores], dtype=torch.float64)
            torch.testing.assert_close(found[b, t], expected)


def test_without_anything_learned_it_is_the_mean_over_all_pairs(
    learned: nn.ModuleDict, recipe: Callable[..., Recipe]
) -> None:
    for parameter in learned.parameters():
        parameter.data.zero_()
    comparison = Comparison(
        recipe=recipe(rtk_weight=3.0, rtk_keys=9), student=STUDENT, teacher=TEACHER, learned=learned
    )
    torch.testing.assert_close(compare(comparison), 3 * map_distances(STUDENT, TEACHER).mean())


def test_gradients_in_float64(learned, recipe):
    """Of the features, and of what is learned: positions, and every layer."""

    def loss(one, two, keys=1):
        used = recipe(rtk_weight=1.0, rtk_keys=keys)
        return compare(Comparison(recipe=used, student=[one, two], teacher=TEACHER, learned=learned))

    assert torch.autograd.gradcheck(loss, [f.clone().requires_grad_() for f in STUDENT])
    loss(*STUDENT, keys=2).backward()
    for name, parameter in learned.named_parameters():
        assert parameter.grad is not None, name
        # Batch normalisation takes a bias before it off again.
        assert name.endswith("0.bias") or parameter.grad.abs().max() > 0, name


def test_nothing_is_read_on_the_host(learned: nn.ModuleDict, recipe: Callable[..., Recipe]) -> None:
    """A meta tensor has no values to read: what would wait for a GPU raises here."""
    student, teacher = ([f.to("meta") for f in features] for features in (STUDENT, TEACHER))
    comparison = Comparison(
        recipe=recipe(rtk_weight=1.0, rtk_keys=1), student=student, teacher=teacher, learned=learned.to("meta")
    )
    assert compare(comparison).shape == ()
