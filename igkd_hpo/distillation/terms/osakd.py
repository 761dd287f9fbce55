"""Online self-acquired knowledge: an image's soft label is what its nearest neighbours in the batch are, no teacher."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.terms import Step

if TYPE_CHECKING:
    from torch import Tensor

HYPERPARAMETERS = {
    "osakd_weight": Hyperparameter(
        "Weight of self-acquired knowledge: the labels of the nearest images in the batch; needs no teacher.",
        Role.TRAINING, high=100, default=0.0, off=0.0, later=True),
    "osakd_neighbors": Hyperparameter(
        "How many nearest images say what an image may be; fewer than batch_size.",
        Role.TRAINING, whole=True, low=1, high=1024, default=10, needs=("osakd_weight",), later=True),
}  # fmt: skip


def term(step: Step) -> "Tensor":
    """Return `self_acquired` of a step."""
    return self_acquired(step.student_logits, step.targets, neighbors=int(step.recipe.number("osakd_neighbors")))


def self_acquired(student_logits: "Tensor", targets: "Tensor", *, neighbors: int) -> "Tensor":
    """Return KL(S || softmax(student_logits)), a mean over the batch, with S_c the share of class c among neighbours.

    With k nearest samples, k_c of them of class c, the k-nearest-neighbour estimate of the densities gives
    p(c | x) = k_c / k: the volumes cancel. Nearest is meant among the other images of the batch, by the Euclidean
    distance of their probabilities; an image is no neighbour of itself, since cross-entropy knows its label already. No
    gradient goes through S. Batches of 128 or more are advised: in small ones the nearest are far. Of mixed images the
    label is that of the larger share.

    The paper was not seen in full, and no code of it is public. That the divergence is KL, and the space that of the
    probabilities, is a choice made here.

    Args:
        student_logits: (B, K), B 2 or more; computed in float32, or in float64 where they are.
        targets: int64 (B,).
        neighbors: k, 1 or more; at most B - 1 are there.

    Source: Tzelepi and Tefas 2021, arXiv 2108.11798.
    """
    import torch
    import torch.nn.functional as F

    logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
    count = min(neighbors, len(targets) - 1)
    with torch.no_grad():
        places = logits.softmax(dim=1)
        # Exact differences: by products of the places, near ones could come out at no distance at all.
        distances = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        nearest = distances.topk(count, largest=False).indices  # (B, k)
        classes = torch.arange(logits.shape[1], device=logits.device)
        shares = (targets[nearest][:, :, None] == classes).to(logits.dtype).mean(dim=1)
    return F.kl_div(logits.log_softmax(dim=1), shares, reduction="batchmean")
