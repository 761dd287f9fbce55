"""What a student minimises."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    targets: Tensor,
    *,
    temperature: float | Tensor,
    alpha: float | Tensor,
) -> Tensor:
    """Return `alpha * temperature**2 * KL(teacher || student) + (1 - alpha) * cross_entropy`, a mean over the batch.

    Computed in float32, or in float64 where the student's logits are. The factor `temperature**2` keeps the gradients
    of the first term at the same size for every temperature.

    Args:
        student_logits: (B, K).
        teacher_logits: (B, K); may be None where `alpha` is the float 0.
        targets: int64 (B,), each in [0, K).
        temperature: above 0; both networks' logits are divided by it in the first term.
        alpha: share of the first term, in [0, 1].

    Raises:
        ValueError: no teacher logits although alpha is not 0.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    student = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
    cross_entropy = F.cross_entropy(student, targets)
    if isinstance(alpha, int | float) and alpha == 0:
        return cross_entropy
    if teacher_logits is None:
        raise ValueError(f"alpha is {alpha}, which needs teacher_logits; give them, or alpha 0")
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher_logits.to(student.dtype) / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy
