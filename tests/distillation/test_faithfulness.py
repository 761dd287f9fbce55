"""Deletion, insertion and sensitivity of maps, of networks whose answers can be computed by hand."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from igkd_hpo.distillation.faithfulness import map_sensitivity, removal_areas
from igkd_hpo.distillation.models import Network

BLACK = torch.zeros(3)


class Sum(nn.Module):
    """Logits 0 and the weighted sum of the red pixels."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = (x[:, 0] * self.weights).sum(dim=(1, 2))
        return torch.stack([torch.zeros_like(total), total], dim=1)


def weighted(*weights: float) -> Network:
    return Network(Sum(torch.tensor(weights).reshape(2, 2)), [0.0] * 3, [1.0] * 3).eval()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def area(logits: list[float]) -> float:
    """Under the class's probability over 0, 1/4, 2/4, 3/4 and 1 of four pixels."""
    heights = [sigmoid(logit) for logit in logits]
    return sum((a + b) / 2 for a, b in pairwise(heights)) / 4


def test_the_areas_by_hand() -> None:
    """Four white pixels of weights 8, 4, 2, 1; one map shows them in that order, the other the wrong way round."""
    pixels, targets = torch.ones(2, 3, 2, 2), torch.tensor([1, 1])
    maps = torch.tensor([[[8.0, 4.0], [2.0, 1.0]], [[1.0, 2.0], [4.0, 8.0]]])
    deletion, insertion = removal_areas(weighted(8, 4, 2, 1), pixels, targets, maps, baseline=BLACK)
    assert deletion.tolist() == pytest.approx([area([15, 7, 3, 1, 0]), area([15, 14, 12, 8, 0])])
    assert insertion.tolist() == pytest.approx([area([0, 8, 12, 14, 15]), area([0, 1, 3, 7, 15])])
    assert deletion[0] < deletion[1]
    assert insertion[0] > insertion[1]
    (other, _) = removal_areas(weighted(8, 4, 2, 1), pixels, torch.tensor([0, 0]), maps, baseline=BLACK)
    assert other.tolist() == pytest.approx((1 - deletion).tolist()), "of two classes, what one loses the other gains"


def test_the_baseline_is_what_replaces_pixels() -> None:
    pixels = torch.full((1, 3, 2, 2), 0.5)
    grey = torch.full((3,), 0.5)
    deletion, insertion = removal_areas(
        weighted(8, 4, 2, 1), pixels, torch.tensor([1]), torch.rand(1, 2, 2), baseline=grey
    )
    assert deletion.tolist() == insertion.tolist() == pytest.approx([sigmoid(7.5)])


def test_a_constant_map_removes_in_an_order_drawn_by_lot() -> None:
    """Not from the first pixel to the last, in which the weights would be sorted: the areas are others."""
    pixels, constant = torch.ones(1, 3, 8, 8), torch.full((1, 8, 8), 3.0)
    network = Network(Sum(torch.linspace(1, -1, 64).reshape(8, 8)), [0.0] * 3, [1.0] * 3).eval()
    target = torch.tensor([1])
    by_lot = removal_areas(network, pixels, target, constant, baseline=BLACK)
    in_rows = removal_areas(network, pixels, target, -torch.arange(64.0).reshape(1, 8, 8), baseline=BLACK)
    assert by_lot[0] > in_rows[0] + 0.2
    assert torch.equal(by_lot[0], removal_areas(network, pixels, target, 0 * constant, baseline=BLACK)[0])


def test_the_network_is_left_as_it_was(tiny_network: Callable[[], Network]) -> None:
    network = tiny_network().train()
    pixels, maps = torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8)
    first = removal_areas(network, pixels, torch.tensor([0, 1, 2]), maps, baseline=BLACK)
    assert network.training
    alone = removal_areas(network.eval(), pixels[:1], torch.tensor([0]), maps[:1], baseline=BLACK)
    torch.testing.assert_close(first[0][:1], alone[0])


def test_sensitivity_is_the_largest_relative_move_of_the_map() -> None:
    """Of a linear network the map is |weight * pixel|, so noise moves it by |weight * noise|: recomputed here."""
    network, target = weighted(3, -2, 1, 0), torch.tensor([1])
    pixels = torch.full((1, 3, 2, 2), 0.5)
    found = map_sensitivity(
        network, pixels, target, baseline=BLACK, n_steps=2, points=None, generator=torch.Generator().manual_seed(0)
    )
    noise = 0.04 * torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)) - 0.02
    weights = torch.tensor([3.0, 2.0, 1.0, 0.0])
    moves = (noise[:, 0].flatten(1) * weights).norm(dim=1) / (0.5 * weights).norm()
    assert found.tolist() == pytest.approx([moves.max().item()], rel=1e-4)


def test_sensitivity_draws_its_noise_from_its_own_generator(tiny_network: Callable[[], Network]) -> None:
    """A network whose map is 0 everywhere has none."""
    network = tiny_network().eval()
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    found = map_sensitivity(
        network, pixels, torch.tensor([0, 1]), baseline=BLACK, n_steps=2, points=3,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())
    assert found.shape == (2,)
    assert (found > 0).all()
    none = map_sensitivity(
        weighted(0, 0, 0, 0), torch.rand(1, 3, 2, 2), torch.tensor([1]), baseline=BLACK, n_steps=2, points=None,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert none.tolist() == [0]
