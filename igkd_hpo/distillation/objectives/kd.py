"""Knowledge distillation: the divergence between the softened answers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kd(
    student_logits: "Tensor", teacher_logits: "Tensor", targets: "Tensor", *, temperature: "float | Tensor"
) -> "Tensor":
    """Return `temperature**2 * KL(teacher || student)` of the softmaxes of logits / temperature, a mean over the batch.

    The factor `temperature**2` keeps the gradients at the same size for every temperature. At a high one the gradient
    is that of matching logits. The targets are not used.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    import torch.nn.functional as F

    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student_logits, teacher_logits))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
