"""The distillation terms that a study file's `objective` names: a file each, importable without torch.

A file has a function of its own name and of the form of `Objective`, and may declare hyperparameters of its own in
`HYPERPARAMETERS`; the function takes those by their names, and `class_counts` where it has an argument of that name.
"""

from collections.abc import Mapping
from functools import partial
from inspect import signature
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


def make_objective(name: str, settings: Mapping[str, Value], class_counts: "Tensor") -> Objective:
    """Return the term of this name, or raise ValueError.

    Args:
        settings: hold, among others, its own hyperparameters.
        class_counts: int64 (C,), the training images of each class up to the largest label, on the logits' device.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"objective is {name!r}; it must be one of {', '.join(OBJECTIVES)}")
    function = getattr(OBJECTIVES[name], name)
    own: dict[str, object] = {key: settings[key] for key in declared_in(OBJECTIVES[name])}
    if "class_counts" in signature(function).parameters:
        own["class_counts"] = class_counts
    objective: Objective = partial(function, **own)
    return objective
