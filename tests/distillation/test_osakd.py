"""Self-acquired knowledge by hand, its limits and its gradient."""

import math

import pytest
import torch

from igkd_hpo.distillation.terms.osakd import self_acquired

# The probabilities of class 1; of class 0 they are the rest, so distances are those of these numbers, times sqrt(2).
PROBABILITIES = (0.1, 0.2, 0.8, 0.95)
TARGETS = torch.tensor([0, 1, 1, 0])


def logits_of(probabilities: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor([[1 - p, p] for p in probabilities], dtype=torch.float64).log()


def test_one_neighbour_by_hand() -> None:
    # The nearest of 0 is 1, of 1 is 0, of 2 is 3, of 3 is 2, whose labels are 1, 0, 0, 1.
    # -(ln 0.1 + ln 0.8 + ln 0.2 + ln 0.95) / 4 = (2.302585 + 0.223144 + 1.609438 + 0.051293) / 4 = 1.046615
    assert self_acquired(logits_of(PROBABILITIES), TARGETS, neighbors=1).item() == pytest.approx(1.046615, abs=1e-6)


def test_all_others_by_hand() -> None:
    # Three neighbours: of the images of class 0 the shares of class 1 are 2/3, of those of class 1 they are 1/3.
    def divergence(share: float, p: float) -> float:
        return share * math.log(share / p) + (1 - share) * math.log((1 - share) / (1 - p))

    shares = (2 / 3, 1 / 3, 1 / 3, 2 / 3)
    expected = sum(map(divergence, shares, PROBABILITIES)) / 4
    for neighbors in (3, 50):  # no more are there
        found = self_acquired(logits_of(PROBABILITIES), TARGETS, neighbors=neighbors)
        assert found.item() == pytest.approx(expected)


def test_the_soft_labels_are_constants() -> None:
    """The gradient is (p - S) / B, as of a cross-entropy with S; S has none of its own."""
    logits = logits_of(PROBABILITIES).requires_grad_()
    (gradient,) = torch.autograd.grad(self_acquired(logits, TARGETS, neighbors=1), logits)
    wanted = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, (logits.detach().exp() - wanted) / 4)
    more = 3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda z: self_acquired(z, targets, neighbors=2), (more.requires_grad_(),))


def test_a_sure_student_whose_neighbours_agree_has_nothing_to_learn() -> None:
    logits = 100 * torch.eye(3)[torch.tensor([0, 0, 1, 1, 2, 2])]
    assert self_acquired(logits, torch.tensor([0, 0, 1, 1, 2, 2]), neighbors=1).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e4, 1e30])
def test_finite_at_extreme_logits(size: float) -> None:
    logits = (size * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = self_acquired(logits, torch.tensor([0, 1, 2, 3, 0]), neighbors=2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_nothing_is_read_on_the_host() -> None:
    """A meta tensor has no values to read: what would wait for a GPU raises here."""
    logits = torch.empty(5, 4, device="meta", requires_grad=True)
    assert self_acquired(logits, torch.empty(5, dtype=torch.int64, device="meta"), neighbors=2).shape == ()
