"""The objectives that are divergences, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.distillation.objectives.dkd import dkd
from igkd_hpo.distillation.objectives.kd import kd
from igkd_hpo.distillation.objectives.logit_standardization import logit_standardization

LN2, LN3 = math.log(2), math.log(3)


def test_dkd_by_hand():
    # Temperature 2, target 0. Teacher (4 ln 2, 2 ln 3, 0) / 2 gives 4 : 3 : 1, so p = (1/2, 3/8, 1/8);
    # the student's zeros give q = (1/3, 1/3, 1/3).
    #   TCKD: (1/2, 1/2) against (1/3, 2/3): 1/2 ln(3/2) + 1/2 ln(3/4) = 0.058892
    #   NCKD: (3/4, 1/4) against (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812
    # 2**2 * (0.058892 + 3 * 0.130812) = 1.805310
    student = torch.zeros(1, 3, dtype=torch.float64)
    teacher = torch.tensor([[4 * LN2, 2 * LN3, 0.0]], dtype=torch.float64)
    loss = dkd(student, teacher, torch.tensor([0]), temperature=2.0, dkd_beta=3.0)
    assert loss.item() == pytest.approx(1.805310, abs=1e-6)


@given(seed=st.integers(0, 1000), target=st.integers(0, 4), temperature=st.floats(0.5, 10))
def test_dkd_with_the_teachers_own_weight_is_kd(seed, target, temperature):
    """Zhao et al. 2022, equation 5: KL is TCKD + (1 - p_target) NCKD, for one sample."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(1, 5, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    targets = torch.tensor([target])
    beta = 1 - (teacher / temperature).softmax(1)[0, target]
    torch.testing.assert_close(
        dkd(student, teacher, targets, temperature=temperature, dkd_beta=beta),
        kd(student, teacher, targets, temperature=temperature),
    )


def test_dkd_with_two_classes_has_nothing_to_rank(logits):
    student, teacher, targets = logits(0, 5, 2), logits(1, 5, 2), torch.tensor([0, 1, 0, 1, 1])
    torch.testing.assert_close(
        dkd(student, teacher, targets, temperature=2.0, dkd_beta=50.0), kd(student, teacher, targets, temperature=2.0)
    )


def test_logit_standardization_by_hand():
    # (3, 1) has mean 2 and deviation 1: (1, -1). The student's (0, 10) becomes (-1, 1).
    # Temperature 2: p = softmax(1/2, -1/2) = (0.731059, 0.268941), q the other way round; ln(p/q) = (1, -1).
    # 2**2 * (0.731059 - 0.268941) = 1.848469
    student = torch.tensor([[0.0, 10.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    loss = logit_standardization(student, teacher, torch.tensor([0]), temperature=2.0)
    assert loss.item() == pytest.approx(1.848469, abs=1e-6)


@given(seed=st.integers(0, 1000), factor=st.floats(1e-3, 1e3))
def test_logit_standardization_does_not_see_the_scale(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    targets = torch.zeros(5, dtype=torch.int64)
    loss = logit_standardization(student, teacher, targets, temperature=2.0)
    torch.testing.assert_close(logit_standardization(student * factor, teacher, targets, temperature=2.0), loss)
    torch.testing.assert_close(logit_standardization(student, teacher * factor, targets, temperature=2.0), loss)
