"""Decoupled knowledge distillation: how sure the teacher is, and how it ranks the wrong classes, weighted apart."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role

if TYPE_CHECKING:
    from torch import Tensor

DKD_BETA = Hyperparameter("dkd alone: weight of the order among the wrong classes.", Role.LOGITS, high=100, default=2.0)
HYPERPARAMETERS = {"dkd_beta": DKD_BETA}


def dkd(
    student_logits: "Tensor",
    teacher_logits: "Tensor",
    targets: "Tensor",
    *,
    temperature: "float | Tensor",
    dkd_beta: "float | Tensor",
) -> "Tensor":
    """Return `temperature**2 * (TCKD + dkd_beta * NCKD)`, a mean over the batch.

    TCKD is KL(teacher || student) of (target, any other class); NCKD that of the softmax over the other classes alone.
    `kd` weights NCKD by the teacher's probability of the other classes, which is next to nothing where the teacher is
    sure; here the weight is `dkd_beta` for every sample. The first term's weight is 1, as published; its warm-up over
    20 epochs is left out. With two classes NCKD is 0. Published for 100 classes is a `dkd_beta` of 6 for MobileNet-V2,
    8 for residual networks.

    Source: Zhao et al. 2022, arXiv 2203.08679, equations 5 to 7.
    """
    import torch.nn.functional as F

    student = _decoupled(student_logits / temperature, targets)
    teacher = _decoupled(teacher_logits / temperature, targets)
    target_class, other_classes = (
        F.kl_div(*pair, reduction="batchmean", log_target=True) for pair in zip(student, teacher, strict=True)
    )
    return temperature**2 * (target_class + dkd_beta * other_classes)


def _decoupled(logits: "Tensor", targets: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return log-probabilities: (B, 2) of (target, any other class), (B, K - 1) of the others among themselves."""
    import torch

    # Counting past the target, not masking it: a mask's shape depends on its content, for which a GPU would wait.
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    other_logits = logits.gather(1, others + (others >= targets[:, None]))
    pair = torch.cat([logits.gather(1, targets[:, None]), other_logits.logsumexp(dim=1, keepdim=True)], dim=1)
    return pair.log_softmax(dim=1), other_logits.log_softmax(dim=1)
