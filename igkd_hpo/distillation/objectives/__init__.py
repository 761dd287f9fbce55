"""The distillation terms that a study file's `objective` names: a file each.

A new one is a file with a function of this form, a line in `make_objective`, and its word in
`config/hyperparameters.py`.
"""

from functools import partial
from typing import Protocol

from torch import Tensor

from igkd_hpo.distillation.objectives.dist import dist
from igkd_hpo.distillation.objectives.dkd import dkd
from igkd_hpo.distillation.objectives.kd import kd
from igkd_hpo.distillation.objectives.logit_standardization import logit_standardization
from igkd_hpo.distillation.objectives.r2kd import r2kd


class Objective(Protocol):
    """A distillation term: how far the student's logits are from the teacher's, a scalar, 0 where they are equal."""

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, temperature: float | Tensor
    ) -> Tensor:
        """Return the term of logits (B, K), both of one float dtype, and int64 targets (B,)."""
        ...


def make_objective(name: str, *, dkd_beta: float) -> Objective:
    """Return the term of this name.

    Raises:
        ValueError: there is none.
    """
    objectives: dict[str, Objective] = {
        "kd": kd,
        "dkd": partial(dkd, beta=dkd_beta),
        "logit_standardization": logit_standardization,
        "dist": dist,
        "r2kd": r2kd,
    }
    if name not in objectives:
        raise ValueError(f"objective is {name!r}; it must be one of {', '.join(objectives)}")
    return objectives[name]
