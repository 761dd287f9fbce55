"""Terms that a recipe can add to the loss, a file each, importable without torch; a term is a scalar of about 1.

A file declares its weight, and what else it takes, in `HYPERPARAMETERS`. Where it has a function `term`, the training
adds that of each `Step`, by its weight; terms on features are added by `FeatureTerms`, which prepares those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import declared_in
from igkd_hpo.listing import list_files

if TYPE_CHECKING:
    from torch import Tensor

    from igkd_hpo.distillation.models import Network
    from igkd_hpo.distillation.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a training, as a term sees it.

    Args:
        network: the student.
        pixels: float (B, 3, H, W) in [0, 1], which the student saw; they require a gradient.
        student_logits: (B, K), as are `teacher_logits`, which are None where nothing in the recipe needs them.
        targets: int64 (B,).
        maps: returns the teacher's maps in the view of the pixels, float (B, H, W); to be called only by a term whose
            weight asks for maps.
    """

    recipe: "Recipe"
    network: "Network"
    pixels: "Tensor"
    student_logits: "Tensor"
    teacher_logits: "Tensor | None"
    targets: "Tensor"
    maps: "Callable[[], Tensor]"


TERMS = list_files("igkd_hpo.distillation.terms")
"""The files by name."""


def added_terms(recipe: "Recipe") -> "list[tuple[float, Callable[[Step], Tensor]]]":
    """Return the terms that are added to the loss of each step, each with its weight; not those on features."""
    return [
        (recipe.number(name), file.term)
        for file in TERMS.values()
        if hasattr(file, "term")
        for name, declared in declared_in(file).items()
        if declared.is_weight and recipe.number(name) > 0
    ]
