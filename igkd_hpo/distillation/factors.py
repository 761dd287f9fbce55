"""A matrix as a matrix product operator: three tensors that are learned in its place and contracted to it.

Source: OPDF, Zhan et al. 2024, arXiv 2411.06448: W is the product of tensors T_k[d_(k-1), i_k, j_k, d_k], with d_k the
smaller of the products of all i j up to k and after it. Its published code is of language models alone, with shapes
that are set by hand, shares the singular values out among the tensors, and adds a mean squared error between the outer
tensors of teacher and student, which it takes from a state dict, so that no gradient follows from it. Here there are
three tensors, the last of which has the singular values, as the decompositions leave them, and no such term.
"""

from math import prod

import torch
from torch import Tensor, nn

Split = tuple[int, int, int]


def split(size: int) -> Split | None:
    """Return three factors above 1 of a size, the smallest in the middle; None where it has fewer than three primes.

    The bonds between tensors are as wide as the smaller side, so that a small one in the middle leaves two large ones:
    channels that are multiples of 8 are learned with half as many numbers again. Factors near each other would add a
    sixteenth.
    """
    primes, left, divisor = list[int](), size, 2
    while divisor * divisor <= left:
        while left % divisor == 0:
            primes.append(divisor)
            left //= divisor
        divisor += 1
    primes += [left] if left > 1 else []
    if len(primes) < 3:
        return None
    outer = size // primes[0]
    first = max(number for number in range(2, int(outer**0.5) + 1) if outer % number == 0)
    return first, primes[0], outer // first


class Factors(nn.Module):
    """The parametrization of a weight by three tensors T_1, T_2, T_3, see torch.nn.utils.parametrize.

    With rows O = o_1 o_2 o_3 and columns I = i_1 i_2 i_3,
    W[o_1 o_2 o_3, i_1 i_2 i_3] = sum over a, b of T_1[o_1 i_1, a] T_2[a, o_2 i_2, b] T_3[b, o_3 i_3],
    where a and b run to the smaller of the sizes to their left and to their right, so that any W can be had.
    """

    def __init__(self, shape: torch.Size) -> None:
        """Take the shape of a weight, (O, I) or (O, I, 1, 1). Raises ValueError where one side cannot be split."""
        super().__init__()
        rows, columns = split(shape[0]), split(shape[1])
        if rows is None or columns is None or prod(shape[2:]) != 1:
            raise ValueError(f"a weight of {tuple(shape)} is no matrix whose sides are products of three factors")
        self._shape = shape
        self._rows, self._columns = rows, columns[::-1]  # large beside small: the bonds are then alike

    def forward(self, first: Tensor, middle: Tensor, last: Tensor) -> Tensor:
        """Return the weight that the tensors stand for, in float32 also where layers run in half precision."""
        with torch.autocast(first.device.type, enabled=False):
            left = (first @ middle.flatten(1)).reshape(-1, last.shape[0])
            pairs = (left @ last).reshape([n for pair in zip(self._rows, self._columns, strict=True) for n in pair])
        return pairs.permute(0, 2, 4, 1, 3, 5).reshape(self._shape)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decompose a weight by two singular value decompositions, one after the other, of which nothing is dropped."""
        given = weight.detach().double()  # what is left of rounding is then that of float32 alone
        pairs = given.reshape(*self._rows, *self._columns).permute(0, 3, 1, 4, 2, 5)
        sizes = [rows * columns for rows, columns in zip(self._rows, self._columns, strict=True)]
        first, values, rest = torch.linalg.svd(pairs.reshape(sizes[0], -1), full_matrices=False)
        left, kept, right = torch.linalg.svd((values[:, None] * rest).reshape(-1, sizes[2]), full_matrices=False)
        middle, last = left.reshape(len(values), sizes[1], -1), kept[:, None] * right
        made = (part.to(weight.dtype).contiguous() for part in (first, middle, last))
        return next(made), next(made), next(made)
