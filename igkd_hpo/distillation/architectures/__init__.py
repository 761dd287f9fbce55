"""The networks that a study file's `student.architecture` names: a file each, importable without torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.listing import list_files

if TYPE_CHECKING:
    from torch import Tensor, nn

INIT = Hyperparameter(
    "Weights that a student begins with: random, or those of the teacher's first blocks.",
    Role.FEATURES, words=("random", "teacher_prefix"), default="random", off="random")  # fmt: skip


class Taps(NamedTuple):
    """A network taken apart: its blocks, the channels that each gives, and the head: logits of the last one's."""

    blocks: "nn.Sequential"
    channels: Sequence[int]
    head: "Callable[[Tensor], Tensor]"


class Knob(NamedTuple):
    """A hyperparameter of an architecture, a number, and at which end of its range students are smallest."""

    declared: Hyperparameter
    smallest: Literal["low", "high"]

    @property
    def to_shrink(self) -> str:
        """Return the word for a value that makes a student smaller: higher or lower."""
        return f"{self.smallest}er"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A kind of student.

    Args:
        called: its name in a model card.
        build: returns the body, float32 (B, 3, H, W) -> logits (B, num_classes), its weights drawn from torch's global
            generator; takes `num_classes` and the knobs by their names.
        knobs: its hyperparameters, whose role is `Role.ARCHITECTURE`, by name.
        code: takes what `build` takes, and returns plain code that builds the same as `body`, with torch and public
            packages alone, for people who have a bundle and not this project; without it they have its ONNX files.
        taps: takes a body apart, None where it is another architecture's; without it, terms on features are refused.
    """

    called: str
    build: "Callable[..., nn.Module]"
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    taps: "Callable[[nn.Module], Taps | None] | None" = None
    code: Callable[..., str] | None = None


ARCHITECTURES: dict[str, Architecture] = {
    name: file.ARCHITECTURE for name, file in list_files("igkd_hpo.distillation.architectures").items()
}
"""All of them by name."""
