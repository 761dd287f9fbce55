"""The teacher's tail: the rest of the teacher is to answer rightly when it is fed by the student."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.objectives.kd import kd

if TYPE_CHECKING:
    from torch import Tensor

    from igkd_hpo.distillation.models import Network

HYPERPARAMETERS = {"teacher_tail_weight": Hyperparameter(
    "Weight of the distillation term on what the rest of the teacher makes of the student's last block.",
    Role.FEATURES, also=(Role.LOGITS,), high=1000, default=0.0, off=0.0,
    same_blocks=True)}  # fmt: skip


def teacher_tail(
    feature: "Tensor", block: int, teacher: "Network", teacher_logits: "Tensor", targets: "Tensor", temperature: float
) -> "Tensor":
    """Return `kd` of the logits that the teacher's blocks after `block` make of the student's feature, and its own.

    The teacher is frozen and in evaluation mode; gradients go through it to the student, which is thus asked for what
    the teacher needs at that place, not for the teacher's numbers. It costs a part of a teacher's forward and backward
    in each step, and nothing in use. The feature, (B, C, H, W), is in the teacher's channels.

    Source: Spirit Distillation, arXiv 2103.13733, where the teacher's head is put on the student's front.
    """
    from igkd_hpo.distillation.blocks import logits_from

    return kd(logits_from(teacher, feature, block), teacher_logits, targets, temperature=temperature)
