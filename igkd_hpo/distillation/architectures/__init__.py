"""The networks that a study file can name: a file for each kind, importable without torch.

A name is `mobilenet_v2` (a file's one network), `torchvision/NAME` or `timm/NAME[.TAG]` (a library's), or
`module:function` (people's own code).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.errors import did_you_mean
from igkd_hpo.listing import list_files
from igkd_hpo.own_code import is_function

if TYPE_CHECKING:
    from torch import Tensor, nn

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A network that is asked for, and what it has to fit.

    Args:
        name: as in a study file.
        num_classes: of its logits, 2 or more.
        image_size: of its input, (height, width).
        allow_import: modules of people's own code that this machine trusts.
    """

    name: str
    num_classes: int
    image_size: tuple[int, int]
    allow_import: frozenset[str] = frozenset()

    @property
    def rest(self) -> str:
        """Return what follows the kind in the name: a library's own name of the network."""
        return self.name.partition("/")[2]


class Taps(NamedTuple):
    """A network taken apart: its blocks, the channels that each gives, and the head: logits of the last one's."""

    blocks: "nn.Sequential"
    channels: Sequence[int]
    head: "Callable[[Tensor], Tensor]"


class Knob(NamedTuple):
    """A hyperparameter of an architecture, a number, and at which end of its range students are smallest.

    Args:
        only: the names of the kind that have it; all of them where it is empty.
    """

    declared: Hyperparameter
    smallest: Literal["low", "high"]
    only: tuple[str, ...] = ()

    @property
    def to_shrink(self) -> str:
        """Return the word for a value that makes a student smaller: higher or lower."""
        return f"{self.smallest}er"


class Origin(NamedTuple):
    """Where published weights are from.

    Args:
        tag: the library's name of these weights.
        licence: as the library tells it; None where it does not.
        url: of the file.
    """

    tag: str
    licence: str | None
    url: str | None


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that a library has published for a network.

    Args:
        tensors: its state dict, classifier included.
    """

    tensors: "Mapping[str, Tensor]"
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A kind of network.

    Args:
        called: the network's name in a model card; None where it is the name in the study file.
        build: returns the body of a `Request`, float32 (B, 3, H, W) -> logits (B, num_classes), its weights drawn from
            torch's global generator; takes the knobs by their names. Raises UsageError for a name that it does not
            know, with near ones, and for a knob that the network has no place for.
        knobs: its hyperparameters, whose role is `Role.ARCHITECTURE`, by name.
        form: of names, where a kind has many networks: `timm/NAME[.TAG]`; None where it is one.
        code: takes the request and the knobs, and returns plain code that builds the same as `body`, with torch and
            public packages alone, for people who have a bundle and not this project; without it they have its ONNX
            files.
        taps: takes a body apart, None where it is another architecture's; without it, terms on features are refused.
        published: returns the library's weights of a request. Raises DataError where there are none, or they cannot be
            had. None where nobody publishes any.
        classes: how many classes the published weights of a name tell apart; None where there are none.
        statistics: mean and std that published weights of this name were trained with, whatever file they are in; None
            where it is not known.
        deploy: returns the form of a body that is shipped, where that is another one than is trained; the body itself
            is left alone.
        library: module that its networks need, beside torch and torchvision.
        foreign: whether it is code of others, whose first step is tried in a process of its own.
        version: of the code that builds a name: its library's, or the hash of people's own file.
        look_up: raises UsageError where the library has no network of this name; it is imported.
        origin: returns that of the published weights of a name, which are not fetched; None where there are none.
    """

    build: "Callable[..., nn.Module]"
    called: str | None = None
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    form: str | None = None
    taps: "Callable[[nn.Module], Taps | None] | None" = None
    code: Callable[..., str | None] | None = None
    published: Callable[[Request], Published] | None = None
    classes: Callable[[Request], int | None] | None = None
    statistics: Callable[[Request], tuple[Triple, Triple] | None] | None = None
    deploy: "Callable[[nn.Module], nn.Module] | None" = None
    library: str | None = None
    foreign: bool = False

    def knobs_of(self, name: str) -> dict[str, Knob]:
        """Return the knobs that the network of this name has, of those of its kind."""
        return {key: knob for key, knob in self.knobs.items() if not knob.only or name in knob.only}

    version: Callable[[Request], str] | None = None
    look_up: Callable[[Request], object] | None = None
    origin: Callable[[Request], Origin | None] | None = None


STAGES_REMOVED = Hyperparameter(
    "Stages (of one resolution each) cut from the end of a torchvision or timm network.",
    Role.ARCHITECTURE, whole=True, high=3, default=0)  # fmt: skip
"""A knob that several kinds share."""
ARCHITECTURES: dict[str, Architecture] = {
    name: file.ARCHITECTURE for name, file in list_files("igkd_hpo.distillation.architectures").items()
}
"""All of them by name."""
FORMS = tuple(kind.form or name for name, kind in sorted(ARCHITECTURES.items(), key=lambda item: item[1].form or ""))
"""What a name can look like."""


def kind_of(name: str) -> str:
    """Return which of ARCHITECTURES a name in a study file is of. Raises ValueError where it has no such form.

    Whether a library has a network of that name is found when it is built.
    """
    kind = "function" if is_function(name) else name.partition("/")[0]
    known = ARCHITECTURES.get(kind)
    if known is None or (known.form is not None) != (kind == "function" or bool(name.partition("/")[2])):
        hint = did_you_mean(name, [other for other, each in ARCHITECTURES.items() if each.form is None])
        raise ValueError(f"{name!r} is not of the form {', '.join(FORMS)}{hint}")
    return kind


def find_architecture(name: str) -> Architecture:
    """Return the kind of network that a name in a study file is of. Raises ValueError where it has no such form."""
    return ARCHITECTURES[kind_of(name)]


NAME = Hyperparameter(
    f"The student's network: {', '.join(FORMS)}.", Role.ARCHITECTURE, check=kind_of, default="mobilenet_v2"
)
INIT = Hyperparameter(
    "Weights that a student begins with: random, published ones (see student.weights), or the teacher's first blocks.",
    Role.FEATURES, words=("random", "pretrained", "teacher_prefix"), default="random", off="random",
    kept=("pretrained",))  # fmt: skip
BODY_RATE = Hyperparameter(
    "With init pretrained: learning rate of what was pretrained, as a share of the new classifier's.",
    Role.TRAINING, default=1.0)  # fmt: skip
FROZEN_BLOCKS = Hyperparameter(
    "With init teacher_prefix: how many first blocks stay the teacher's, in all epochs but those of labels_alone.",
    Role.TRAINING, whole=True, high=19, default=0, later=True)  # fmt: skip
