"""The distillation terms that a study file's `objective` names: a file each, importable without torch.

A file has a function of its own name and of the form of `Objective`, and may declare hyperparameters of its own in
`HYPERPARAMETERS`; the function takes those by their names.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from igkd_hpo.distillation.hyperparameter import Value, declared_in
from igkd_hpo.listing import list_files

if TYPE_CHECKING:
    from torch import Tensor

OBJECTIVES = list_files("igkd_hpo.distillation.objectives")
"""The files by name."""


class Objective(Protocol):
    """A distillation term: how far the student's logits are from the teacher's, a scalar, 0 where they are equal."""

    def __call__(
        self, student_logits: "Tensor", teacher_logits: "Tensor", targets: "Tensor", *, temperature: "float | Tensor"
    ) -> "Tensor":
        """Return the term of logits (B, K), both of one float dtype, int64 targets (B,) and a temperature above 0."""
        ...


def make_objective(name: str, settings: Mapping[str, Value]) -> Objective:
    """Return the term of this name, or raise ValueError; `settings` hold, among others, its own hyperparameters."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective is {name!r}; it must be one of {', '.join(OBJECTIVES)}")
    file = OBJECTIVES[name]
    objective: Objective = partial(getattr(file, name), **{own: settings[own] for own in declared_in(file)})
    return objective
