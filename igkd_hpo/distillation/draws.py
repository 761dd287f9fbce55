"""Draws that follow from an image's content: always the same ones, whatever other images there are."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_STREAM = 0xD1B54A32D192ED03  # odd, so that streams begin far from each other


def uniform(digests: Tensor, count: int, each: int, *, stream: int = 0) -> NDArray[np.float64]:
    """Draw `each` numbers in [0, 1) for each of `count` views of each image, (each, N, count).

    Args:
        digests: int64 (N,), of the images' content.
        count: views of each image; more of them do not change the first ones.
        each: numbers for a view.
        stream: another one draws other numbers.

    Source: splitmix64, Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195; its state begins at the digest.
    """
    draws = np.arange(1, count * each + 1, dtype=np.uint64).reshape(count, each).transpose(1, 0)
    begin = digests.cpu().numpy().view(np.uint64)
    with np.errstate(over="ignore"):
        begin = begin + np.uint64(stream) * np.uint64(_STREAM)
        state = begin[None, :, None] + draws[:, None, :] * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    numbers: NDArray[np.float64] = (state >> np.uint64(11)).astype(np.float64) / 2.0**53
    return numbers
