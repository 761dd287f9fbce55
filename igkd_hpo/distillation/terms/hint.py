"""Hints: the student's last block is to give the features of the teacher's block of that number, or stride."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role

if TYPE_CHECKING:
    from torch import Tensor

HYPERPARAMETERS = {"hint_weight": Hyperparameter(
    "Weight of the hint: what the student's last block gives against the teacher's of that number, or stride.",
    Role.FEATURES, high=1000, default=0.0, off=0.0)}  # fmt: skip


def hint(student_feature: "Tensor", teacher_feature: "Tensor") -> "Tensor":
    """Return the squared error over the teacher's squares: 0 where they are equal, 1 where the student's are all 0.

    Others take the mean squared error itself, whose size depends on the network. Features are (B, C, H, W), the
    student's brought to the teacher's channels where the widths differ.

    Source: Romero et al. 2015, arXiv 1412.6550, equation 3; at the cut, as in Spirit Distillation, arXiv 2103.13733.
    """
    size = teacher_feature.square().mean()
    return (student_feature - teacher_feature).square().mean() / size.clamp_min(1e-12)
