"""DIST: the student's probabilities are to rise and fall with the teacher's, not to equal them."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.similarity import correlation_distance

if TYPE_CHECKING:
    from torch import Tensor

_BETWEEN_CLASSES = _WITHIN_CLASSES = 2.0  # beta and gamma of the paper's experiments on CIFAR-100 and ImageNet


def dist(
    student_logits: "Tensor", teacher_logits: "Tensor", targets: "Tensor", *, temperature: "float | Tensor"
) -> "Tensor":
    """Return `temperature**2 * (2 * D_rows + 2 * D_columns)`, with D the mean of 1 - Pearson's correlation.

    Correlated are the softmaxes of logits / temperature: over the classes of each sample (rows), and over the samples
    of each class (columns), so the batch size is part of the objective. Rows or columns in which the teacher does not
    vary count 0. The published temperatures are 4 for CIFAR-100 and 1 for ImageNet. The targets are not used.

    Source: Huang et al. 2022, arXiv 2205.10536, equations 8 to 10.
    """
    student, teacher = ((logits / temperature).softmax(dim=1) for logits in (student_logits, teacher_logits))
    rows = correlation_distance(student, teacher, dim=1)
    columns = correlation_distance(student, teacher, dim=0)
    return temperature**2 * (_BETWEEN_CLASSES * rows + _WITHIN_CLASSES * columns)
