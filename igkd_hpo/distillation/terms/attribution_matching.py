"""Attribution matching: the student's answer is to rest on the pixels on which the teacher's rests."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.similarity import cosine_distance
from igkd_hpo.distillation.terms import Step

if TYPE_CHECKING:
    from torch import Tensor

    from igkd_hpo.distillation.models import Network

HYPERPARAMETERS = {"attribution_weight": Hyperparameter(
    "Weight of attribution matching: the student's own map against the teacher's; two to three times the work.",
    Role.MAPS, high=1000, default=0.0, off=0.0)}  # fmt: skip


def term(step: Step) -> "Tensor":
    """Return `attribution_matching` of a step."""
    return attribution_matching(step.network, step.pixels, step.student_logits, step.targets, step.maps())


def attribution_matching(
    network: "Network", pixels: "Tensor", student_logits: "Tensor", targets: "Tensor", teacher_maps: "Tensor"
) -> "Tensor":
    """Return 1 - the cosine of the student's map and the teacher's, a mean over the batch, in [0, 1].

    The student's map is |input * gradient| of the label's logit, summed over the colours, the input being the body's: 0
    is then the mean colour, from which the teacher's Integrated Gradients start too. Its gradient needs the
    second derivative of the network, so a step costs two to three times as much. In training, batch normalisation
    lets the images of a batch influence each other a little, and the map is that of the batch.

    Args:
        pixels: float (B, 3, H, W) in [0, 1], of which `student_logits` (B, K) were made, and which require a gradient.
        targets: int64 (B,), the class whose logit is explained.
        teacher_maps: float (B, H, W), 0 or above, of any scale, in the view of the pixels; a map of zeros counts 0.

    Source: Parchami-Araghi et al. 2024, arXiv 2402.03119, equation 3, with the maps that this project has.
    """
    import torch

    explained = student_logits.gather(1, targets[:, None]).float().sum()
    (gradient,) = torch.autograd.grad(explained, pixels, create_graph=True)
    maps = ((pixels.detach() - network.mean) * gradient).abs().sum(dim=1)
    return cosine_distance(maps.flatten(1), teacher_maps.flatten(1), dim=1)
