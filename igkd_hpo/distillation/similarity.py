"""Cosine and Pearson's correlation as distances that are finite, and have a gradient, everywhere."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def unit(x: "Tensor", dim: int) -> "Tensor":
    """Return x divided by its root mean square along `dim`: the same for a * x with any a above 0; zeros stay zeros."""
    import torch

    # Squares of what was divided by the largest neither overflow nor vanish. The result does not depend on this
    # divisor, so its own gradient is rightly left out.
    peak = x.detach().abs().amax(dim=dim, keepdim=True)
    scaled = x / torch.where(peak > 0, peak, 1)
    square = scaled.square().mean(dim=dim, keepdim=True)
    return scaled / torch.where(peak > 0, square, 1).sqrt()


def standardize(x: "Tensor", dim: int) -> "Tensor":
    """Return x with mean 0 and standard deviation 1 (over N) along `dim`; zeros where x is constant."""
    return unit(x - x.mean(dim=dim, keepdim=True), dim)


def cosine_distance(student: "Tensor", teacher: "Tensor", dim: int) -> "Tensor":
    """Return the mean of 1 - cosine along `dim`, in [0, 2]; 0 where the teacher's values are all 0.

    A teacher that says nothing asks for nothing. Where only the student's values are all 0 the distance is 1, and the
    gradient still points towards the teacher's.
    """
    wanted = unit(teacher, dim)
    return (wanted * (wanted - unit(student, dim))).mean()


def correlation_distance(student: "Tensor", teacher: "Tensor", dim: int) -> "Tensor":
    """Return the mean of 1 - Pearson's correlation along `dim`, in [0, 2]; 0 where the teacher's are constant."""
    centred_student, centred_teacher = (x - x.mean(dim=dim, keepdim=True) for x in (student, teacher))
    return cosine_distance(centred_student, centred_teacher, dim)
