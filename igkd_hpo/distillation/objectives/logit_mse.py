"""The squared error of the logits: what high temperatures tend to, without a temperature."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def logit_mse(
    student_logits: "Tensor", teacher_logits: "Tensor", targets: "Tensor", *, temperature: "float | Tensor"
) -> "Tensor":
    """Return the squared error of the logits, each sample's brought to mean 0, a mean over the batch and the classes.

    Published is that of the logits as they are. What a sample's logits have in common changes no softmax, and averaged
    teachers have no such number to copy, so it is left out here. `kd` tends to half of this as the temperature rises.
    The temperature cancels out, but for several teachers, whose probabilities are averaged at it; the targets are not
    used. Logits that differ by more than 1e19 have no square in float32: infinite, as is then the loss.

    Source: Kim et al. 2021, arXiv 2105.08919. It is also what KD-DAGFM distils by: Tian et al. 2022, arXiv 2211.11159,
    github.com/Ethan-TZ/DAGFM.
    """
    difference = student_logits - teacher_logits
    return (difference - difference.mean(dim=1, keepdim=True)).square().mean()
