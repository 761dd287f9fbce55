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
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return `alpha * objective + (1 - alpha) * cross_entropy`, a mean over the batch.

    Computed in float32, or in float64 where the student's logits are. Logits are (B, K), targets int64 (B,).

    Args:
        teacher_logits: may be None where `alpha` is the float 0; elsewhere ValueError is raised.
        temperature: above 0; the objective's.
        alpha: share of the objective, in [0, 1].
        label_smoothing: share of the target that cross-entropy spreads over all classes, in [0, 1].
        mixtures: of the batch: cross-entropy takes both labels, the objective those of the larger shares.
        class_weights: what the cross-entropy of an image of each class is multiplied by, (K,); None is 1 for each.
    """
    student = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
    cross_entropy = _cross_entropy(student, targets, mixtures, class_weights, label_smoothing)
    if isinstance(alpha, int | float) and alpha == 0:
        return cross_entropy
    if teacher_logits is None:
        raise ValueError(f"alpha is {alpha}, which needs teacher_logits; give them, or alpha 0")
    term = objective(student, teacher_logits.to(student.dtype), targets, temperature=temperature)
    return alpha * term + (1 - alpha) * cross_entropy


def _cross_entropy(
    student: Tensor, targets: Tensor, mixtures: Mixtures | None, class_weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Weigh each image's cross-entropy, smoothing included, and divide by the images of the batch.

    torch's `weight` does neither. It weighs the smoothed part of a target by the class that the share goes to, so that
    a common class's image is drawn to the rare ones: at 19 to 1 and 0.1, as much as to its own. And it divides by the
    weights of the batch, so that a rare image counts less the more of its class are with it, and a batch of common ones
    counts as if they were not. Divided by the number of images, all steps together follow the gradient of the weighted
    loss, and beside the distillation term, a mean too, cross-entropy keeps its size: balanced weights have the mean 1.
    """
    if mixtures is None and class_weights is None:
        return F.cross_entropy(student, targets, label_smoothing=label_smoothing)

    def of_each(labels: Tensor) -> Tensor:
        losses = F.cross_entropy(student, labels, label_smoothing=label_smoothing, reduction="none")
        return losses if class_weights is None else class_weights.to(student.dtype)[labels] * losses

    return of_each(targets).mean() if mixtures is None else mixtures.mix_losses(of_each, targets).mean()


def balanced_weights(labels: Tensor) -> Tensor:
    """Return the weight of each class up to the largest label: N / (classes that occur * images of the class).

    As scikit-learn's `compute_class_weight("balanced")`, float32 on the labels' device; 0 for a class without an image.
    Reads the labels on the host, so this is for before a training.
    """
    counts = torch.bincount(labels)
    weights = len(labels) / ((counts > 0).sum() * counts.clamp(min=1).float())
    return torch.where(counts > 0, weights, 0)
