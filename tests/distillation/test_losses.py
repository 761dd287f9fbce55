import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from igkd_hpo.distillation.losses import balanced_weights, distillation_loss


def logits(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3


def test_two_classes_by_hand() -> None:
    # Temperature 2: teacher (2 ln 3, 0) / 2 gives p = (3/4, 1/4); the student's (0, 0) gives q = (1/2, 1/2).
    # KL(p || q) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812; cross-entropy = ln 2 = 0.693147.
    # 0.25 * 2**2 * 0.130812 + 0.75 * 0.693147 = 0.650672
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    loss = distillation_loss(student, teacher, torch.tensor([1]), temperature=2.0, alpha=0.25)
    assert loss.item() == pytest.approx(0.650672, abs=1e-6)


def test_three_classes_by_hand_and_the_mean_over_the_batch() -> None:
    # Temperature 1, alpha 1/2. Row 1: p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), target 2:
    #   KL = 1/2 ln 2 + 0 + 1/4 ln(1/2) = 0.173287; cross-entropy = ln 2 = 0.693147.
    # Row 2: p = q = (1/3, 1/3, 1/3), target 0: KL = 0; cross-entropy = ln 3 = 1.098612.
    # 1/2 * (0.173287 + 0) / 2 + 1/2 * (0.693147 + 1.098612) / 2 = 0.491262
    student = torch.tensor([[0.0, 0.0, math.log(2)], [5.0, 5.0, 5.0]])
    teacher = torch.tensor([[math.log(2), 0.0, 0.0], [-1.0, -1.0, -1.0]])
    loss = distillation_loss(student, teacher, torch.tensor([2, 0]), temperature=1.0, alpha=0.5)
    assert loss.item() == pytest.approx(0.491262, abs=1e-6)


@pytest.mark.parametrize("alpha", [0, 0.0, torch.tensor(0.0)])
def test_alpha_0_is_cross_entropy_bit_for_bit(alpha: float) -> None:
    student, targets = logits(0, 16, 10), torch.arange(16) % 10
    loss = distillation_loss(student, logits(1, 16, 10), targets, temperature=4.0, alpha=alpha)
    assert torch.equal(loss, F.cross_entropy(student, targets))


def test_alpha_0_needs_no_teacher_and_any_other_does() -> None:
    student, targets = logits(0, 4, 3), torch.tensor([0, 1, 2, 0])
    distillation_loss(student, None, targets, temperature=4.0, alpha=0.0)
    with pytest.raises(ValueError, match=r"alpha is 0\.1, .*teacher_logits"):
        distillation_loss(student, None, targets, temperature=4.0, alpha=0.1)


def test_alpha_1_with_equal_logits_is_0() -> None:
    student = logits(0, 16, 10)
    assert distillation_loss(student, student, torch.arange(16) % 10, temperature=3.0, alpha=1.0).item() == 0


def test_teacher_comes_first_in_the_divergence() -> None:
    student, teacher = logits(0, 8, 5, dtype=torch.float64), logits(1, 8, 5, dtype=torch.float64)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    loss = distillation_loss(student, teacher, torch.zeros(8, dtype=torch.int64), temperature=2.0, alpha=1.0)
    torch.testing.assert_close(loss, expected)


def test_gradient_in_float64() -> None:
    student = logits(0, 5, 4, dtype=torch.float64).requires_grad_()
    teacher, targets = logits(1, 5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    assert torch.autograd.gradcheck(
        lambda z: distillation_loss(z, teacher, targets, temperature=2.5, alpha=0.7), (student,)
    )


def test_high_temperature_is_logit_matching() -> None:
    """The gradient tends to the difference of the centred logits over K (Hinton et al. 2015, equation 4)."""
    student = logits(0, 6, 4, dtype=torch.float64).requires_grad_()
    teacher = logits(1, 6, 4, dtype=torch.float64)
    distillation_loss(student, teacher, torch.zeros(6, dtype=torch.int64), temperature=1e5, alpha=1.0).backward()
    assert student.grad is not None
    difference = student.detach() - teacher
    matching = (difference - difference.mean(1, keepdim=True)) / 4 / 6
    torch.testing.assert_close(student.grad, matching, rtol=1e-3, atol=1e-5)


@given(alpha=st.floats(0, 1), temperature=st.floats(0.5, 20), seed=st.integers(0, 1000))
def test_linear_in_alpha_and_never_negative(alpha: float, temperature: float, seed: int) -> None:
    student, teacher = logits(seed, 4, 3, dtype=torch.float64), logits(seed + 1, 4, 3, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 0])

    def loss(a: float) -> torch.Tensor:
        return distillation_loss(student, teacher, targets, temperature=temperature, alpha=a)

    torch.testing.assert_close(loss(alpha), alpha * loss(1.0) + (1 - alpha) * loss(0.0))
    assert loss(1.0) >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher, targets = logits(0, 16, 10).to(dtype), logits(1, 16, 10).to(dtype), torch.arange(16) % 10
    loss = distillation_loss(student, teacher, targets, temperature=4.0, alpha=0.5)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, distillation_loss(student.float(), teacher.float(), targets, temperature=4.0, alpha=0.5))


def test_label_smoothing_is_of_the_targets_term_alone() -> None:
    # Smoothing 0.3 over 3 classes: the target has 0.8, the others 0.1 each.
    student, teacher = logits(0, 4, 3), logits(1, 4, 3)
    targets = torch.tensor([0, 1, 2, 0])
    smooth = torch.full((4, 3), 0.1).scatter(1, targets[:, None], 0.8)
    smoothed = -(smooth * student.log_softmax(1)).sum(1).mean()
    plain = distillation_loss(student, teacher, targets, temperature=2.0, alpha=0.25)
    loss = distillation_loss(student, teacher, targets, temperature=2.0, alpha=0.25, label_smoothing=0.3)
    torch.testing.assert_close(loss - plain, 0.75 * (smoothed - F.cross_entropy(student, targets)))
    alone = distillation_loss(student, None, targets, temperature=2.0, alpha=0.0, label_smoothing=0.3)
    torch.testing.assert_close(alone, smoothed)
    only_teacher = distillation_loss(student, teacher, targets, temperature=2.0, alpha=1.0, label_smoothing=0.3)
    assert torch.equal(only_teacher, distillation_loss(student, teacher, targets, temperature=2.0, alpha=1.0))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 57 + [1] * 3 + [3] * 30)  # no image of class 2
    occurring = np.unique(labels.numpy())
    expected = compute_class_weight("balanced", classes=occurring, y=labels.numpy())
    weights = balanced_weights(labels)
    assert weights[occurring].tolist() == pytest.approx(expected.tolist())
    assert weights[2] == 0
    assert weights[labels].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_multiply_the_loss_of_an_image(smoothing: float) -> None:
    student, targets = logits(0, 6, 3, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = torch.tensor([0.5, 1.0, 4.0])
    losses = [
        F.cross_entropy(student[i : i + 1], targets[i : i + 1], label_smoothing=smoothing) * weights[targets[i]]
        for i in range(6)
    ]
    loss = distillation_loss(
        student, None, targets, temperature=1.0, alpha=0.0, label_smoothing=smoothing, class_weights=weights
    )
    assert loss.item() == pytest.approx(float(torch.stack(losses).mean()))


def test_a_smoothed_label_leans_to_no_rare_class() -> None:
    # The best answer to images of one class alone does not depend on weights: torch's own would lean to class 1.
    for weights in (torch.tensor([1.0, 1.0]), torch.tensor([0.526, 10.0])):
        best = torch.tensor([[0.0, math.log(0.05 / 0.95)]], dtype=torch.float64, requires_grad=True)
        loss = distillation_loss(
            best, None, torch.tensor([0]), temperature=1.0, alpha=0.0, label_smoothing=0.1, class_weights=weights
        )
        (gradient,) = torch.autograd.grad(loss, best)
        assert gradient.abs().max() < 1e-9


def test_class_weights_leave_the_distillation_term_alone() -> None:
    student, teacher, targets = logits(0, 8, 3), logits(1, 8, 3), torch.arange(8) % 3
    weights = torch.tensor([0.2, 1.0, 5.0])
    plain = distillation_loss(student, teacher, targets, temperature=2.0, alpha=1.0)
    weighted = distillation_loss(student, teacher, targets, temperature=2.0, alpha=1.0, class_weights=weights)
    assert torch.equal(plain, weighted)
