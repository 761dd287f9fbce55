"""Structured knowledge transfer by hand, its limits and its gradients."""

import pytest
import torch
from torch import Tensor

from igkd_hpo.distillation.terms.skt import check_pairs, inter_layer, intra_layer
from igkd_hpo.errors import UsageError


def feature(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row(*channels: list[float]) -> Tensor:
    """One image, one row of positions."""
    return torch.tensor([[[channel] for channel in channels]], dtype=torch.float64)


def test_intra_by_hand() -> None:
    # Two positions: (1, 0) with (1, 1), of cosine 1 / sqrt(2): 0.292893; (3, 4) with (6, 8): 0. Mean 0.146447.
    student, teacher = row([1.0, 3.0], [0.0, 4.0]), row([1.0, 6.0], [1.0, 8.0])
    assert intra_layer([student], [teacher]).item() == pytest.approx(0.146447, abs=1e-6)
    assert intra_layer([student, teacher], [teacher, teacher]).item() == pytest.approx(0.146447 / 2, abs=1e-6)
    # Of two sizes, both come to the smaller one, by means over areas: the student's positions are (2, 0) and (1, 4).
    # With (1, 1): 0.292893; with (6, 8): 1 - (6 + 32) / (sqrt(17) * 10) = 0.078365. Mean 0.185629.
    wide = row([1.0, 3.0, 0.0, 2.0], [0.0, 0.0, 3.0, 5.0])
    assert intra_layer([wide], [teacher]).item() == pytest.approx(0.185629, abs=1e-6)


def test_inter_by_hand() -> None:
    # One channel at each of two places. The teacher's go together: G = 1; the student's have nothing in common: G = 0.
    teacher = [row([1.0, -1.0, 1.0, -1.0]), row([5.0, 3.0, 5.0, 3.0])]
    student = [row([1.0, -1.0, 1.0, -1.0]), row([2.0, 2.0, -2.0, -2.0])]
    assert inter_layer(student, teacher).item() == pytest.approx(1)
    # The opposite: -1 against 1.
    assert inter_layer([teacher[0], -teacher[1]], teacher).item() == pytest.approx(4)
    # A third place that is constant goes with nothing, in both: pairs of (0 - 1)**2, 0 and 0.
    flat = row([7.0] * 4)
    assert inter_layer([*student, flat], [*teacher, flat]).item() == pytest.approx(1 / 3)


def test_places_of_other_sizes_meet_at_the_smallest_by_the_largest_of_each_area() -> None:
    small = [row([1.0, -1.0, 1.0, -1.0]), row([5.0, 3.0, 5.0, 3.0])]
    high = torch.cat([small[0], small[0] - torch.tensor([9.0, 1.0, 9.0, 5.0], dtype=torch.float64)], dim=2)  # 2x4
    assert inter_layer([high, small[1]], small).abs().item() < 1e-12


def test_a_weight_means_the_same_for_every_batch_and_every_image_counts() -> None:
    student, teacher = ([feature(seed, 6, 3, 4, 4), feature(seed + 1, 6, 2, 2, 2)] for seed in (0, 2))
    for term in (intra_layer, inter_layer):
        whole = term(student, teacher)
        each = [term([f[n : n + 1] for f in student], [f[n : n + 1] for f in teacher]) for n in range(6)]
        torch.testing.assert_close(whole, torch.stack(each).mean())
        twice = [torch.cat([f, f]) for f in student], [torch.cat([f, f]) for f in teacher]
        torch.testing.assert_close(term(*twice), whole)
        assert max(each) > 1.01 * min(each)


def test_limits() -> None:
    teacher = [feature(0, 3, 4, 4, 4), feature(1, 3, 2, 2, 2)]
    for term in (intra_layer, inter_layer):
        assert term([7 * f for f in teacher], teacher).abs().item() < 1e-12, "what is larger is no different"
        assert term(teacher, [torch.zeros_like(f) for f in teacher]).isfinite()
        silent = [torch.zeros_like(f).requires_grad_() for f in teacher]
        gradients = torch.autograd.grad(term(silent, teacher), silent)
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert intra_layer([-f for f in teacher], teacher).item() == pytest.approx(2), "the opposite"
    single = [f[:, :, :1, :1] for f in teacher]
    assert inter_layer([-f for f in single], single).item() == 0, "a single position does not vary"


def test_gradients_in_float64() -> None:
    teacher = [feature(0, 2, 2, 4, 4), feature(1, 2, 3, 2, 2)]
    student = [feature(2, 2, 2, 4, 4).requires_grad_(), feature(3, 2, 3, 2, 2).requires_grad_()]
    for term in (intra_layer, inter_layer):
        assert torch.autograd.gradcheck(lambda one, two, term=term: term([one, two], teacher), student)


def test_nothing_is_read_on_the_host() -> None:
    """A meta tensor has no values to read: what would wait for a GPU raises here."""
    features = [torch.empty(2, 3, 4, 4, device="meta"), torch.empty(2, 5, 2, 2, device="meta")]
    assert intra_layer(features, features).shape == inter_layer(features, features).shape == ()


def test_pairs_need_two_places() -> None:
    check_pairs((4, 8))
    with pytest.raises(UsageError, match=r" 16 alone .*skt_inter_weight: 0"):
        check_pairs((16,))
