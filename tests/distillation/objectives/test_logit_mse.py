"""The squared error of logits by hand, and what it has to do with divergences."""

import pytest
import torch

from igkd_hpo.distillation.objectives.kd import kd
from igkd_hpo.distillation.objectives.logit_mse import logit_mse

TARGETS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_by_hand(temperature: float) -> None:
    # First sample: (3, 1, 2) - (0, 2, 1) = (3, -1, 1), of mean 1: (2, -2, 0), squares 4 + 4 + 0, a mean of 8/3.
    # Second: (9, 8, 7) - (4, 3, 2) = (5, 5, 5): 0. Mean of the batch 4/3.
    student = torch.tensor([[3.0, 1.0, 2.0], [9.0, 8.0, 7.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 2.0, 1.0], [4.0, 3.0, 2.0]], dtype=torch.float64)
    assert logit_mse(student, teacher, TARGETS, temperature=temperature).item() == pytest.approx(4 / 3)


def test_kd_tends_to_half_of_it_as_the_temperature_rises() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    half = logit_mse(student, teacher, TARGETS, temperature=1.0) / 2
    far = [abs(kd(student, teacher, TARGETS, temperature=t).item() / half.item() - 1) for t in (10.0, 100.0, 1000.0)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.01
