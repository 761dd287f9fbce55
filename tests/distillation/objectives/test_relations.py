"""The objectives that compare by correlation and order, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.distillation.objectives.dist import dist
from igkd_hpo.distillation.objectives.r2kd import r2kd, soft_ranks
from igkd_hpo.distillation.similarity import correlation_distance, cosine_distance, standardize

NO_TARGETS = torch.zeros(2, dtype=torch.int64)


def log(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_dist_by_hand():
    # Temperature 1: the softmax of logarithms is the probabilities themselves.
    # Rows: the teacher's (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4), the student's (1/4, 1/2, 1/4) twice.
    #   Centred, in twelfths: (2, -1, -1) with (-1, 2, -1): -3 / 6 = -1/2, so 3/2; the second row is equal: 0. Mean 3/4.
    # Columns: the student's do not vary: 1 for the two that vary in the teacher, 0 for the third. Mean 2/3.
    # 2 * 3/4 + 2 * 2/3 = 17/6
    student = log([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]])
    teacher = log([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    assert dist(student, teacher, NO_TARGETS, temperature=1.0).item() == pytest.approx(17 / 6)
    at_2 = dist(2 * student, 2 * teacher, NO_TARGETS, temperature=2.0)
    assert at_2.item() == pytest.approx(4 * 17 / 6)


@given(seed=st.integers(0, 1000), factor=st.floats(1e-6, 1e6), shift=st.floats(-10, 10))
def test_correlation_does_not_see_scale_and_shift(seed, factor, shift):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    for dim in (0, 1):
        distance = correlation_distance(student, teacher, dim)
        torch.testing.assert_close(correlation_distance(student * factor, teacher, dim), distance)
        torch.testing.assert_close(correlation_distance(student + shift, teacher, dim), distance)
        torch.testing.assert_close(correlation_distance(-teacher, teacher, dim), torch.tensor(2.0, dtype=torch.float64))
    expected = 1 - torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(student, teacher, strict=True)])
    torch.testing.assert_close(correlation_distance(student, teacher, 1), expected.mean())
    cosines = torch.nn.functional.cosine_similarity(student, teacher, dim=1)
    torch.testing.assert_close(cosine_distance(student, teacher, 1), 1 - cosines.mean())


def test_a_constant_has_no_direction_but_a_gradient_towards_the_teacher():
    assert torch.equal(standardize(torch.full((2, 3), 7.0), 1), torch.zeros(2, 3))
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    distance = correlation_distance(student, teacher, 1)
    (gradient,) = torch.autograd.grad(distance, student)
    assert distance.item() == pytest.approx(1)
    assert gradient.isfinite().all()
    assert correlation_distance(student - gradient, teacher, 1) < 0.01
    assert correlation_distance(teacher, torch.full_like(teacher, 5.0), 1) == 0


def test_soft_ranks_by_hand():
    # sigmoid(ln 3) = 3/4: (ln 3, 0) ranks (1/2 + 3/4, 1/4 + 1/2); far apart they are the true ranks plus a half.
    ranks = soft_ranks(torch.tensor([[math.log(3), 0.0], [1000.0, -1000.0]], dtype=torch.float64))
    torch.testing.assert_close(ranks, torch.tensor([[1.25, 0.75], [1.5, 0.5]], dtype=torch.float64))


def test_r2kd_by_hand():
    # Temperature 1, one sample of two classes: p = (3/4, 1/4) and q = (1/4, 3/4).
    #   Rows: cosine = (3 + 3) / (9 + 1) = 0.6, so 0.4. Columns hold one number each: cosine 1, so 0.
    #   Ranks (1.25, 0.75) and (0.75, 1.25): correlation -1, so 2.
    # 2 * 0.4 + 2 * 2 = 4.8
    loss = r2kd(log([[0.25, 0.75]]), log([[0.75, 0.25]]), NO_TARGETS[:1], temperature=1.0)
    assert loss.item() == pytest.approx(4.8)


def test_the_rank_term_alone_moves_the_order():
    """Two logits whose order is wrong change places, which ranks from sorting could not make them do."""
    student = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64)
    for _ in range(200):
        distance = correlation_distance(soft_ranks(student), soft_ranks(teacher), 1)
        (gradient,) = torch.autograd.grad(distance, student)
        assert gradient.abs().max() > 0
        student = (student - gradient).detach().requires_grad_()
        if student[0, 0] > student[0, 1]:
            return
    pytest.fail(f"the order is still wrong: {student.tolist()}")
