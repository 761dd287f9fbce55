"""The loss that a student minimises: a distillation term and cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor

from igkd_hpo.distillation.mixing import Mixtures
from igkd_hpo.distillation.objectives import Objective
from igkd_hpo.distillation.objectives.kd import kd


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    targets: Tensor,
    *,
    temperature: float | Tensor,
    alpha: float | Tensor,
    objective: Objective = kd,
    label_smoothing: float = 0.0,
    mixtures: Mixtures | None = None,
) -> Tensor:
    """Return `alpha * objective + (1 - alpha) * cross_entropy`, a mean over the batch.

    Computed in float32, or in float64 where the student's logits are. Logits are (B, K), targets int64 (B,).

    Args:
        teacher_logits: may be None where `alpha` is the float 0; elsewhere ValueError is raised.
        temperature: above 0; the objective's.
        alpha: share of the objective, in [0, 1].
        label_smoothing: share of the target that cross-entropy spreads over all classes, in [0, 1].
        mixtures: of the batch: cross-entropy takes both labels, the objective those of the larger shares.
    """
    student = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
    if mixtures is None:
        cross_entropy = F.cross_entropy(student, targets, label_smoothing=label_smoothing)
    else:
        cross_entropy = mixtures.cross_entropy(student, targets, label_smoothing=label_smoothing)
    if isinstance(alpha, int | float) and alpha == 0:
        return cross_entropy
    if teacher_logits is None:
        raise ValueError(f"alpha is {alpha}, which needs teacher_logits; give them, or alpha 0")
    term = objective(student, teacher_logits.to(student.dtype), targets, temperature=temperature)
    return alpha * term + (1 - alpha) * cross_entropy
