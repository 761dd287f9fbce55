"""Class-balanced distillation: by hand, against the published form, and its limits."""

import math

import pytest
import torch

from igkd_hpo.distillation.objectives.foster import effective_weights, foster
from igkd_hpo.distillation.objectives.kd import kd

TARGETS = torch.zeros(4, dtype=torch.int64)


def random_logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_by_hand(temperature: float) -> None:
    # Images 1 and 3, beta 1/2: weights (1/2) / (1/2) = 1 and (1/2) / (7/8) = 4/7, scaled by their mean 11/14.
    # The teacher's (1/2, 1/2) become 7 : 4, so q = (7/11, 4/11); the student's are (1/2, 1/2).
    # KL = 7/11 ln(14/11) + 4/11 ln(8/11) = 0.1534668 - 0.1158014 = 0.0376654, times the temperature squared.
    counts, halves = torch.tensor([1, 3]), torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(effective_weights(counts, 2, 0.5), torch.tensor([14 / 11, 8 / 11], dtype=torch.float64))
    loss = foster(halves, halves, TARGETS[:1], temperature=temperature, foster_beta=0.5, class_counts=counts)
    assert loss.item() == pytest.approx(temperature**2 * 0.0376654, abs=1e-6)


def test_its_gradient_is_that_of_the_published_cross_entropy() -> None:
    """-sum q log p, with q the weighted softmax over its sum: without the factor and the entropy, nothing to learn."""
    counts, temperature, beta = torch.tensor([50, 8, 1]), 2.0, 0.9
    weights = [(1 - beta) / (1 - beta**n) for n in (50, 8, 1)]
    student, teacher = random_logits(0).requires_grad_(), random_logits(1)
    total = torch.zeros((), dtype=torch.float64)
    for mine, others in zip(student, teacher, strict=True):
        parts = [weight * math.exp(z / temperature) for weight, z in zip(weights, others.tolist(), strict=True)]
        wanted = torch.tensor([part / sum(parts) for part in parts], dtype=torch.float64)
        total = total - (wanted * (mine / temperature).log_softmax(0)).sum() / len(student)
    (published,) = torch.autograd.grad(total, student)
    loss = foster(student, teacher, TARGETS, temperature=temperature, foster_beta=beta, class_counts=counts)
    (found,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(found, temperature**2 * published)


def test_with_as_many_images_of_each_class_or_beta_0_it_is_kd_bit_for_bit() -> None:
    student, teacher = random_logits(0), random_logits(1)
    expected = kd(student, teacher, TARGETS, temperature=2.0)
    for counts, beta in ((torch.tensor([7, 7, 7]), 0.97), (torch.tensor([1, 900, 30]), 0.0)):
        found = foster(student, teacher, TARGETS, temperature=2.0, foster_beta=beta, class_counts=counts)
        assert torch.equal(found, expected)


def test_towards_1_a_weight_is_one_over_the_images() -> None:
    weights = effective_weights(torch.tensor([100, 10, 1]), 3, 0.999999)
    torch.testing.assert_close(
        weights / weights[2], torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_a_class_without_an_image_weighs_as_one_with_a_single_one() -> None:
    """Also where no label reaches it, so that the counts end before it."""
    expected = effective_weights(torch.tensor([9, 1, 1]), 3, 0.9)
    assert torch.equal(effective_weights(torch.tensor([9, 0]), 3, 0.9), expected)
    assert expected.mean().item() == pytest.approx(1)
