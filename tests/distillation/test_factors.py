"""A matrix in three tensors: nothing is lost, and the contraction is the one of the definition."""

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.distillation.factors import Factors, split

SIDES = [8, 12, 18, 30]


def random_weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(min_value=1, max_value=5000))
def test_three_factors_above_one_of_whatever_has_three_primes(size: int) -> None:
    primes, left, divisor = 0, size, 2
    while left > 1:
        while left % divisor == 0:
            primes, left = primes + 1, left // divisor
        divisor += 1
    factors = split(size)
    assert (factors is None) == (primes < 3)
    if factors is not None:
        assert prod(factors) == size
        assert min(factors) > 1
        assert factors[1] == min(factors)


def test_the_contraction_is_that_of_the_definition() -> None:
    """Element by element: two numbers of each side's index, and the sum over both bonds."""
    factors = Factors(torch.Size((8, 12)))
    weight = random_weight(8, 12)
    first, middle, last = factors.right_inverse(weight)
    (o1, o2, o3), (i1, i2, i3) = (2, 2, 2), (3, 2, 2)
    assert first.shape == (o1 * i1, 6)
    assert middle.shape == (6, o2 * i2, 4)
    assert last.shape == (4, o3 * i3)
    expected = torch.zeros(8, 12, dtype=torch.float64)
    for row in range(8):
        for column in range(12):
            (a, b, c), (d, e, f) = (row // 4, row // 2 % 2, row % 2), (column // 4, column // 2 % 2, column % 2)
            expected[row, column] = first[a * i1 + d] @ middle[:, b * i2 + e] @ last[:, c * i3 + f]
    assert torch.allclose(factors(first, middle, last), expected, atol=1e-12)
    assert torch.allclose(expected, weight, atol=1e-12)


@given(st.sampled_from(SIDES), st.sampled_from(SIDES), st.integers(0, 99), st.sampled_from([1, 2, 99]))
def test_nothing_is_lost_of_any_matrix(rows: int, columns: int, seed: int, rank: int) -> None:
    weight = random_weight(rows, min(rank, columns), seed) @ random_weight(min(rank, columns), columns, seed + 1)
    factors = Factors(weight.shape)
    assert torch.allclose(factors(*factors.right_inverse(weight)), weight, atol=1e-10)


def test_nothing_is_lost_in_float32_nor_of_zeros_nor_of_a_1x1_kernel() -> None:
    weight = random_weight(96, 64).float()[:, :, None, None]
    factors = Factors(weight.shape)
    parts = factors.right_inverse(weight)
    assert all(part.dtype == torch.float32 and part.is_contiguous() for part in parts)
    assert torch.allclose(factors(*parts), weight, atol=2e-6)
    assert sum(part.numel() for part in parts) > 1.4 * weight.numel()  # more is learned than is shipped
    assert not factors(*factors.right_inverse(torch.zeros_like(weight))).any()


def test_it_is_contracted_in_float32_where_layers_run_in_half_precision() -> None:
    factors = Factors(torch.Size((8, 8)))
    parts = factors.right_inverse(random_weight(8, 8).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(factors(*parts), factors(*parts).float())
        assert factors(*parts).dtype == torch.float32


@pytest.mark.parametrize("shape", [(10, 8), (8, 7), (8, 8, 3, 3)])
def test_what_is_no_matrix_of_three_factors_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(shape[0])):
        Factors(torch.Size(shape))
