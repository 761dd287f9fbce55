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

    Args:
        student_logits: (B, K), of the same dtype as `teacher_logits`.
        temperature: above 0.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    import torch.nn.functional as F

    divergence = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence
