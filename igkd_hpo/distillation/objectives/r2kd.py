"""R2KD: the angle between the probabilities, and the order of the logits."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.similarity import correlation_distance, cosine_distance

if TYPE_CHECKING:
    from torch import Tensor

_VALUE_WEIGHT = _RANK_WEIGHT = 2.0  # as published


def r2kd(
    student_logits: "Tensor", teacher_logits: "Tensor", targets: "Tensor", *, temperature: "float | Tensor"
) -> "Tensor":
    """Return `2 * temperature**2 * (C_rows + C_columns) + 2 * (1 - rho)`, a mean over the batch.

    C is 1 - cosine between the softmaxes of logits / temperature, over the classes of each sample (rows) and over the
    samples of each class (columns); rho is Spearman's correlation of each sample's logits, with soft ranks.

    This is not the published code's rank term, and cannot be: ranks from sorting are constant almost everywhere, so
    that term has no gradient and changes nothing. Here the rank of class i is the sum over j of
    sigmoid((z_i - z_j) / temperature), which tends to the true rank as the temperature falls, and is nearly linear in
    the logits where it is high. It takes memory for B * K * K numbers. The copies of the batch under stronger
    augmentation that the paper adds are left out. The published temperature is 4. The targets are not used.

    Source: Kim et al. 2023, arXiv 2311.13934; soft ranks as in Qin et al. 2010, doi 10.1007/s10791-009-9124-x.
    """
    student, teacher = student_logits / temperature, teacher_logits / temperature
    of_student, of_teacher = student.softmax(dim=1), teacher.softmax(dim=1)
    values = cosine_distance(of_student, of_teacher, dim=1) + cosine_distance(of_student, of_teacher, dim=0)
    ranks = correlation_distance(soft_ranks(student), soft_ranks(teacher), dim=1)
    return _VALUE_WEIGHT * temperature**2 * values + _RANK_WEIGHT * ranks


def soft_ranks(logits: "Tensor") -> "Tensor":
    """Return how many classes each class is above, counted softly: (B, K) in [0.5, K - 0.5], of logits (B, K)."""
    return (logits[:, :, None] - logits[:, None, :]).sigmoid().sum(dim=2)
