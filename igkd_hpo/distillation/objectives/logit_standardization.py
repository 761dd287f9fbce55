"""Knowledge distillation on standardised logits: the student is not asked to copy how large the teacher's are."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.objectives.kd import kd
from igkd_hpo.distillation.similarity import standardize

if TYPE_CHECKING:
    from torch import Tensor


def logit_standardization(
    student_logits: "Tensor", teacher_logits: "Tensor", targets: "Tensor", *, temperature: "float | Tensor"
) -> "Tensor":
    """Return `kd` of logits that are first brought to mean 0 and standard deviation 1, sample by sample.

    The temperature then means the same for every sample and both networks; published values are 2 and above. Adding a
    constant to a sample's logits, or scaling them by a number above 0, changes nothing. The deviation is taken over K,
    as in the paper; its code takes K - 1. The targets are not used.

    Source: Sun et al. 2024, arXiv 2403.01731, algorithm 1 and equation 10.
    """
    return kd(standardize(student_logits, dim=1), standardize(teacher_logits, dim=1), targets, temperature=temperature)
