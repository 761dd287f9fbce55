"""The added terms by hand, their limits and their gradients."""

import pytest
import torch
from torch import nn

from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.terms.attention import (
    attention_blocks,
    attention_map,
    attention_strides,
    attention_transfer,
)
from igkd_hpo.distillation.terms.attribution_matching import attribution_matching
from igkd_hpo.distillation.terms.hint import hint


def feature(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transfer(student: dict[int, torch.Tensor], teacher: dict[int, torch.Tensor], *places: int) -> torch.Tensor:
    maps = [{place: attention_map(feature) for place, feature in each.items()} for each in (student, teacher)]
    return attention_transfer(*maps, places)


def test_attention_by_hand() -> None:
    # One sample, one row of two positions. Teacher, two channels: squares (9 + 9, 0 + 0) / 2 = (9, 0): (1, 0).
    # Student, one channel: squares (9, 16), of length sqrt(337): (0.490261, 0.871576).
    # Distance squared: 0.509739**2 + 0.871576**2 = 1.019478
    teacher = torch.tensor([[[[3.0, 0.0]], [[-3.0, 0.0]]]], dtype=torch.float64)
    student = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
    assert transfer({5: student}, {5: teacher}, 5).item() == pytest.approx(1.019478, abs=1e-6)
    both = transfer({5: student, 6: teacher}, {5: teacher, 6: teacher}, 5, 6)
    assert both.item() == pytest.approx(1.019478 / 2, abs=1e-6)


def test_attention_sees_neither_scale_nor_sign_nor_channels() -> None:
    student, teacher = {0: feature(0, 4, 3, 5, 5)}, {0: feature(1, 4, 3, 5, 5)}
    distance = transfer(student, teacher, 0)
    for same in (-7 * student[0], student[0][:, [2, 0, 1]], torch.cat([student[0]] * 2, dim=1)):
        torch.testing.assert_close(transfer({0: same}, teacher, 0), distance)
    assert transfer(teacher, teacher, 0).abs() < 1e-12
    silent = {0: torch.zeros(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)}
    (gradient,) = torch.autograd.grad(transfer(silent, teacher, 0), silent[0])
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("layers_removed", "middle", "stages"),
    [
        (0, (9,), (3, 6, 13, 18)), (3, (9,), (3, 6, 13, 15)), (5, (9,), (3, 6, 13)), (7, (9,), (3, 6, 11)),
        (9, (4,), (3, 6, 9)), (11, (4,), (3, 6, 7)), (13, (4,), (3, 5)), (15, (2,), (3,)), (17, (0,), (1,)),
    ],
)  # fmt: skip
def test_the_blocks_of_each_length(layers_removed: int, middle: tuple[int], stages: tuple[int, ...]) -> None:
    """The middles are the paper's for the lengths that it tried, 3 to 17."""
    last = 18 - layers_removed
    assert attention_blocks("middle", last) == middle
    assert attention_blocks("stages", last) == stages
    assert attention_blocks("last", last) == (last,)
    with pytest.raises(ValueError, match=r"attention_depths .*'first'.* middle, last or stages"):
        attention_blocks("first", last)


@pytest.mark.parametrize(
    ("strides", "middle", "last"),
    [((2, 4, 8, 16, 32), 8, 32), ((2, 4), 4, 4), ((4, 16), 4, 16), ((16, 32), 16, 32), ((8,), 8, 8)],
)
def test_the_strides_of_each_depth(strides: tuple[int, ...], middle: int, last: int) -> None:
    assert attention_strides("middle", strides) == (middle,)
    assert attention_strides("last", strides) == (last,)
    assert attention_strides("stages", strides) == strides
    with pytest.raises(ValueError, match=r"attention_depths .*'first'.* middle, last or stages"):
        attention_strides("first", strides)


def test_attention_of_two_sizes_by_hand() -> None:
    # The teacher's 2x4 positions, squared, in areas of 2x2: means (1 + 0 + 1 + 2) / 4 = 1 and 0: (1, 0).
    # The student's 1x2 positions, squared: (9, 16), so the distance is that of the hand calculation above.
    teacher = torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [1.0, 2**0.5, 0.0, 0.0]]]], dtype=torch.float64)
    student = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
    assert transfer({8: student}, {8: teacher}, 8).item() == pytest.approx(1.019478, abs=1e-6)
    assert transfer({8: teacher}, {8: student}, 8).item() == pytest.approx(1.019478, abs=1e-6)


def test_hint_by_hand() -> None:
    # Squared errors 1 + 0 + 4 + 0 = 5, the teacher's squares 1 + 4 + 4 + 1 = 10.
    teacher = torch.tensor([[[[1.0, 2.0], [2.0, -1.0]]]])
    student = torch.tensor([[[[0.0, 2.0], [4.0, -1.0]]]])
    assert hint(student, teacher).item() == pytest.approx(0.5)
    assert hint(torch.zeros_like(teacher), teacher).item() == pytest.approx(1)
    assert hint(teacher, teacher).item() == 0
    assert hint(student, torch.zeros_like(teacher)).isfinite()


def test_gradients_in_float64() -> None:
    student, teacher = feature(0, 2, 2, 3, 3).requires_grad_(), feature(1, 2, 2, 3, 3)
    assert torch.autograd.gradcheck(lambda x: hint(x, teacher), (student,))
    assert torch.autograd.gradcheck(lambda x: transfer({0: x}, {0: teacher}, 0), (student,))


def linear(weight: torch.Tensor) -> Network:
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    body[1].weight.data = weight.flatten(1)
    return Network(body, [0.5] * 3, [0.25] * 3)


def test_attribution_matching_by_hand() -> None:
    # A linear network: the gradient is the label's weights over the deviation, 0.25. Only the first colour has weights.
    # Pixels minus mean: (1/2, -1/2, 0, 1/4) at the four positions; weights 1, 1, 1, 2.
    # The map is 4 * (1/2, 1/2, 0, 1/2).
    # The teacher's map (1, 1, 0, 0): cosine 2 / (sqrt(2) * sqrt(3)) = 0.816497
    weight = torch.zeros(2, 3, 2, 2)
    weight[1, 0] = torch.tensor([[1.0, 1.0], [1.0, 2.0]])
    network = linear(weight)
    pixels = torch.full((1, 3, 2, 2), 0.9)
    pixels[0, 0] = torch.tensor([[1.0, 0.0], [0.5, 0.75]])
    pixels.requires_grad_()
    maps = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    loss = attribution_matching(network, pixels, network(pixels), torch.tensor([1]), maps)
    assert loss.item() == pytest.approx(1 - 0.816497, abs=1e-6)
    same = attribution_matching(
        network, pixels, network(pixels), torch.tensor([1]), 7 * torch.tensor([[[1, 1], [0, 1.0]]])
    )
    assert same.item() == pytest.approx(0, abs=1e-6)
    nothing = attribution_matching(network, pixels, network(pixels), torch.tensor([1]), torch.zeros(1, 2, 2))
    assert nothing.item() == 0


def test_attribution_matching_has_a_second_derivative() -> None:
    """Its gradient in the weights is what numbers close by say, through a network that is not linear."""
    maps = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        network = linear(torch.zeros(2, 3, 2, 2)).double()
        pixels = images.clone().requires_grad_()
        logits = torch.tanh(torch.nn.functional.linear(((pixels - network.mean) / network.std).flatten(1), weight))
        return attribution_matching(network, pixels, logits, torch.tensor([0, 1, 1]), maps)

    weight = torch.randn(2, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 4
    assert torch.autograd.gradcheck(loss, (weight.requires_grad_(),))


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e20])
def test_attribution_matching_is_finite_whatever_the_student_is(value: float) -> None:
    network = linear(torch.full((2, 3, 2, 2), value))
    pixels = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = attribution_matching(network, pixels, network(pixels), torch.tensor([0, 1]), torch.rand(2, 2, 2))
    loss.backward()
    assert loss.isfinite()
    assert network.body[1].weight.grad is not None
    assert network.body[1].weight.grad.isfinite().all()
