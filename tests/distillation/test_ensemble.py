"""Several teachers as one: by hand, as a property, and in a training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from igkd_hpo.distillation.ensemble import average_members
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.objectives import OBJECTIVES, make_objective
from igkd_hpo.distillation.teaching import CachedLogits, MemberLogits, OutOfFoldLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import count_views

CPU = torch.device("cpu")


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_two_members_by_hand(temperature):
    """Halves, and nine tenths to one: the mean is 0.7 and 0.3. That of the logits would be 0.75 and 0.25."""
    logits = torch.tensor([[[0.0, 0.0], [temperature * math.log(9), 0.0]]])
    averaged = average_members(logits, temperature)
    expected = torch.tensor([[temperature * math.log(0.7), temperature * math.log(0.3)]])
    torch.testing.assert_close(averaged, expected)


@given(
    seed=st.integers(0, 10_000),
    members=st.integers(1, 6),
    scale=st.floats(0.01, 30),
    temperature=st.floats(0.25, 50),
)
def test_the_softmax_is_the_mean_of_the_softmaxes(seed, members, scale, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, members, 4, generator=generator, dtype=torch.float64)
    averaged = average_members(logits, temperature)
    mean = (logits / temperature).softmax(dim=2).mean(dim=1)
    torch.testing.assert_close((averaged / temperature).softmax(dim=1), mean)
    backwards = average_members(logits.flip(1), temperature)
    torch.testing.assert_close(backwards, averaged)
    if members == 1:
        shift = averaged - logits[:, 0]
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_members_that_agree_teach_what_one_of_them_teaches(name):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    targets = torch.tensor([0, 1, 2, 3, 0])
    objective = make_objective(name, {"dkd_beta": 2.0, "foster_beta": 0.97}, torch.tensor([50, 5, 20, 1]))
    together = average_members(teacher[:, None].expand(5, 3, 4), 2.5)
    torch.testing.assert_close(
        objective(student, together, targets, temperature=2.5), objective(student, teacher, targets, temperature=2.5)
    )


def test_a_training_averages_at_its_own_temperature(tiny_network, data, recipe):
    chosen = recipe(epochs=1, temperature=3.0)
    views = count_views(chosen)
    table = (4 * torch.randn(70, views, 2, 3, generator=torch.Generator().manual_seed(0))).half()
    averaged = average_members(table.float().flatten(0, 1), 3.0).unflatten(0, (70, views))
    results = []
    for given_table in (table, averaged):
        teaching = CachedLogits(given_table, views)
        training = Training(tiny_network(), data, chosen, device=CPU, teaching=teaching)
        results.append([metrics.train_loss for metrics in training.epochs()])
    assert results[0] == pytest.approx(results[1], rel=1e-6)


class Brightness(nn.Module):
    """Answers the corner's pixel, and its own number: which image it saw, and who it is."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        corner = x[:, 0, 0, 0] * 255
        return torch.stack([corner, torch.full_like(corner, self.number)], dim=1)


def networks(count):
    return [Network(Brightness(number), [0.0] * 3, [1.0] * 3).eval() for number in range(count)]


def test_each_image_is_shown_to_its_own_member_and_keeps_its_place():
    folds = torch.tensor([2, 0, 2, 1, 0, 0, 2, 3])
    rows = torch.tensor([7, 0, 5, 5, 3, 6, 1])  # of four members, one is asked about one image, in the first place
    pixels = (rows[:, None, None, None] / 255.0).expand(-1, 3, 2, 2)
    answers = OutOfFoldLogits(networks(5), folds).logits(rows, torch.zeros_like(rows), pixels)
    torch.testing.assert_close(answers, torch.stack([rows, folds[rows]], dim=1).float(), atol=1e-2, rtol=0)


def test_members_are_all_asked_in_their_order():
    pixels = torch.zeros(4, 3, 2, 2)
    answers = MemberLogits(networks(3)).logits(torch.arange(4), torch.zeros(4).long(), pixels)
    assert answers.shape == (4, 3, 2)
    assert answers[:, :, 1].tolist() == [[0.0, 1.0, 2.0]] * 4
