"""What holds for every objective."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.distillation.losses import distillation_loss
from igkd_hpo.distillation.objectives import OBJECTIVES, make_objective
from tests.distillation.objectives.conftest import BALANCED, SETTINGS

TARGETS = torch.tensor([0, 1, 2, 3, 0])


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"objective .*'kdd'.* dist, dkd, foster, kd, "):
        make_objective("kdd", {}, BALANCED)


def test_gradient_in_float64(objective, logits):
    student = logits(0, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, logits(1, 5, 4), TARGETS, temperature=2.5), (student,))


def test_gradient_with_classes_that_do_not_vary(objective, logits):
    """A teacher that answers every image alike, and rows of equal logits: no variance to divide by."""
    student = logits(0, 5, 4).requires_grad_()
    teacher = torch.tensor([1.0, 2.0, 4.0, 3.0], dtype=torch.float64).expand(5, 4)
    assert torch.autograd.gradcheck(lambda z: objective(z, teacher, TARGETS, temperature=2.0), (student,))
    flat = torch.zeros(5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: objective(z, flat, TARGETS, temperature=2.0), (student,))


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_equal_logits_give_0_and_ask_for_nothing(objective, logits, temperature):
    student = logits(0, 5, 4).requires_grad_()
    loss = objective(student, student.detach().clone(), TARGETS, temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 10))
def test_never_negative_and_free_of_a_constant_per_sample(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(5, 4, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    shift = torch.randn(5, 1, generator=generator, dtype=torch.float64) * 10
    for name in OBJECTIVES:
        objective = make_objective(name, SETTINGS, BALANCED)
        loss = objective(student, teacher, TARGETS, temperature=temperature)
        assert loss > 0, name
        for moved in ((student + shift, teacher), (student, teacher + shift)):
            torch.testing.assert_close(objective(*moved, TARGETS, temperature=temperature), loss, msg=name)


@pytest.mark.parametrize("student_size", [0.0, 1e-30, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("teacher_size", [0.0, 1e-30, 1e4, 6e4])
def test_finite_at_extreme_logits(name, objective, logits, student_size, teacher_size):
    """Half-precision logits reach 65504; what diverges may reach anything."""
    if name == "logit_mse":
        student_size = min(student_size, 1e18)  # beyond, a square is no float32: see its docstring
    student = (logits(0, 5, 4, dtype=torch.float32) * student_size).requires_grad_()
    teacher = logits(1, 5, 4, dtype=torch.float32) / 10 * teacher_size
    loss = objective(student, teacher, TARGETS, temperature=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_few_steps_down_the_gradient_come_closer(objective, logits):
    student, teacher = logits(0, 5, 4).requires_grad_(), logits(1, 5, 4)
    first = objective(student, teacher, TARGETS, temperature=2.0)
    optimizer = torch.optim.Adam([student], lr=0.3)
    for _ in range(50):
        optimizer.zero_grad()
        objective(student, teacher, TARGETS, temperature=2.0).backward()
        optimizer.step()
    assert objective(student, teacher, TARGETS, temperature=2.0) < 0.5 * first


def test_alpha_mixes_it_with_cross_entropy(objective, logits):
    student, teacher = logits(0, 5, 4), logits(1, 5, 4)
    term = objective(student, teacher, TARGETS, temperature=2.0)
    for label_smoothing in (0.0, 0.2):
        cross_entropy = torch.nn.functional.cross_entropy(student, TARGETS, label_smoothing=label_smoothing)
        loss = distillation_loss(
            student, teacher, TARGETS, temperature=2.0, alpha=0.3, objective=objective, label_smoothing=label_smoothing
        )
        torch.testing.assert_close(loss, 0.3 * term + 0.7 * cross_entropy)


def test_two_classes(objective, logits):
    loss = objective(logits(0, 5, 2), logits(1, 5, 2), TARGETS % 2, temperature=2.0)
    assert loss.isfinite()
    assert loss > 0


def test_nothing_is_read_on_the_host(name):
    """A meta tensor has no values to read: what would wait for a GPU raises here."""
    student, teacher = (torch.empty(5, 4, device="meta", requires_grad=needed) for needed in (True, False))
    objective = make_objective(name, SETTINGS, BALANCED.to("meta"))
    loss = objective(student, teacher, TARGETS.to("meta"), temperature=2.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert (loss.shape, gradient.shape) == ((), student.shape)
