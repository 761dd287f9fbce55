"""Class-balanced knowledge distillation: the teacher's probabilities of rare classes count for more."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.objectives.kd import kd

if TYPE_CHECKING:
    from torch import Tensor

HYPERPARAMETERS = {"foster_beta": Hyperparameter(
    "foster alone: 0 is kd; towards 1 a class's weight tends to one over its training images.",
    Role.LOGITS, high=0.99999, default=0.97, later=True)}  # fmt: skip


def foster(
    student_logits: "Tensor",
    teacher_logits: "Tensor",
    targets: "Tensor",
    *,
    temperature: "float | Tensor",
    foster_beta: "float | Tensor",
    class_counts: "Tensor",
) -> "Tensor":
    """Return `kd` with the teacher's softmax multiplied by `effective_weights` and brought back to a sum of 1.

    Where all classes have as many images it is `kd`. Elsewhere the student is asked to be surer of rare classes than
    its teacher is, so the term is 0 where the student's logits are the teacher's plus temperature * log(weights). The
    published code has no factor `temperature**2`, a beta of 0.97 and a temperature of 2, and no cross-entropy beside
    it. The targets are not used.

    Args:
        foster_beta: in [0, 1).
        class_counts: int64 (C,), the training images of each class, C at most K; classes beyond count as one without.

    Source: the compression stage of FOSTER, Wang et al. 2022, arXiv 2204.04662, github.com/G-U-N/ECCV22-FOSTER.
    """
    weights = effective_weights(class_counts, student_logits.shape[1], foster_beta).to(teacher_logits.dtype)
    return kd(student_logits, teacher_logits + temperature * weights.log(), targets, temperature=temperature)


def effective_weights(class_counts: "Tensor", num_classes: int, beta: "float | Tensor") -> "Tensor":
    """Return (1 - beta) / (1 - beta**n) of each class's n images, scaled to a mean of 1: float64 (K,), each above 0.

    A class without an image weighs as much as one with a single one, so that its logarithm is finite.

    Source: Cui et al. 2019, arXiv 1901.05555.
    """
    import torch
    import torch.nn.functional as F

    counts = F.pad(class_counts, (0, num_classes - len(class_counts))).clamp(min=1).to(torch.float64)
    effective = (1 - beta) / (1 - beta**counts)
    return effective / effective.mean()
