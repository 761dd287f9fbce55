"""Terms that a recipe can add to the loss, a file each, importable without torch; a term is a scalar of about 1.

A file declares its weight, and what else it takes, in `HYPERPARAMETERS`. Where it has a function `term`, the training
adds that of each `Step`, by its weight. Where it has a function `compare`, that gets the student's features and the
teacher's of several places as a `Comparison`, and returns its terms by their weights; `learn`, of `Places`, makes what
it learns with the student, an empty `ModuleDict` where that is nothing. `FeatureTerms` has the other terms on features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from igkd_hpo.distillation.hyperparameter import declared_in
from igkd_hpo.listing import list_files

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import ModuleDict

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


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where features are compared, each place the same in both networks, from the first to the deepest.

    Args:
        numbers: of the blocks, or the strides.
        student: channels of the student's features, place by place; `teacher` of the teacher's.
    """

    numbers: tuple[int, ...]
    student: tuple[int, ...]
    teacher: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The features of one step of a training, as a term on them sees it.

    Args:
        student: float32 (B, C, H, W), one of each place, as are the `teacher`'s, which require no gradient.
        learned: what the file's `learn` made for this training.
    """

    recipe: "Recipe"
    student: "Sequence[Tensor]"
    teacher: "Sequence[Tensor]"
    learned: "ModuleDict"


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


def comparing_files(recipe: "Recipe") -> dict[str, ModuleType]:
    """Return by name the files whose `compare` has something to add to the loss."""
    return {name: file for name, file in TERMS.items() if hasattr(file, "compare") and _is_weighted(file, recipe)}


def _is_weighted(file: ModuleType, recipe: "Recipe") -> bool:
    return any(one.is_weight and recipe.number(name) > 0 for name, one in declared_in(file).items())
