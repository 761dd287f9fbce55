"""The settings of one training, and all hyperparameters by name: this file's own, and those of other files.

An objective, a term and an architecture declare theirs in their own file, as `HYPERPARAMETERS` or `knobs`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

from igkd_hpo.distillation.architectures import ARCHITECTURES, BODY_RATE, FROZEN_BLOCKS, INIT, NAME, kind_of
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role, Value, declared_in
from igkd_hpo.distillation.objectives import OBJECTIVES
from igkd_hpo.distillation.terms import TERMS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings that decide the result of a training, beside the data, the networks and the machine."""

    epochs: int
    optimizer: str  # sgd, adam or adamw
    schedule: str  # constant, cosine or one_cycle
    crop_padding: int  # pixels
    horizontal_flip: bool
    views: int | None  # boxes of each image; None: crops are shifted by the padding
    scale: tuple[float, float] | None  # of the boxes, in shares of the image's area
    mixed: float | None  # share of the boxes that are mixed with another image's; None: none
    seed: int  # 0 or more; order, views and overlays follow from it, the initial weights are the caller's
    precision: str  # float32, bfloat16 or float16
    channels_last: bool
    compile: str  # none, cuda_graph, or auto: a CUDA graph where it can be had, is right and is faster
    settings: Mapping[str, Value]  # the hyperparameters without a field of their own: of objectives and terms, and init
    # fmt: off
    temperature: Annotated[float, Hyperparameter(
        "Softens both softmaxes of the distillation term.", Role.LOGITS, high=100, above=True, needs=(Role.LOGITS,))]
    alpha: Annotated[float, Hyperparameter(
        "Weight of the distillation term; 1 - alpha weights cross-entropy.", Role.LOGITS, off=0.0)]
    overlay_probability: Annotated[float, Hyperparameter(
        "Share of the training samples that get an overlay.", Role.MAPS, off=0.0, needs=("overlay_strength",))]
    overlay_strength: Annotated[float, Hyperparameter(
        "0 leaves the image alone, 1 shows nothing but the map.", Role.MAPS, needs=("overlay_probability",))]
    learning_rate: Annotated[float, Hyperparameter("Peak learning rate.", Role.TRAINING, high=100, above=True)]
    weight_decay: Annotated[float, Hyperparameter(
        "L2 penalty (sgd, adam) or decoupled decay (adamw).", Role.TRAINING, default=5.0e-4)]
    batch_size: Annotated[int, Hyperparameter(
        "Images in a step.", Role.TRAINING, whole=True, low=2, high=65536, default=128)]
    objective: Annotated[str, Hyperparameter(
        f"The distillation term: {', '.join(OBJECTIVES)}.", Role.LOGITS,
        words=tuple(OBJECTIVES), default="kd", off="kd", needs=("alpha",))]
    overlay_mode: Annotated[str, Hyperparameter(
        "blend: image and map mixed; multiply: dark where the map is low; background: there faded to the mean colour.",
        Role.MAPS, words=("blend", "multiply", "background"), default="blend", needs=("overlay_probability",))]
    alignment: Annotated[str, Hyperparameter(
        "Whose map and logits an image gets; anything but aligned is a negative control.", Role.TRAINING,
        words=("aligned", "reference_shuffled", "permuted_maps", "smooth_noise", "mean_map"), default="aligned",
        needs=(Role.LOGITS, Role.MAPS, Role.FEATURES))]
    ema_decay: Annotated[float, Hyperparameter(
        "Per step; the student is the running average of the weights; 0: it is the last weights.",
        Role.TRAINING, high=0.99999, default=0.0)]
    label_smoothing: Annotated[float, Hyperparameter(
        "Share of a label that is spread over all classes, in the cross-entropy term.", Role.TRAINING, default=0.0)]
    cutout: Annotated[int, Hyperparameter(
        "Side, in pixels, of a square that is cut out of the student's view; 0 cuts out nothing.",
        Role.TRAINING, whole=True, high=1024, default=0)]
    flip: Annotated[str, Hyperparameter(
        "With horizontal_flip: by chance, or each image in every second epoch.",
        Role.TRAINING, words=("random", "alternating"), default="random")]
    decay: Annotated[str, Hyperparameter(
        "What weight_decay acts on; weights leaves out batch normalisation and biases.",
        Role.TRAINING, words=("all", "weights"), default="all")]
    mixup: Annotated[float, Hyperparameter(
        "Share of the samples that are blended with another image; the teacher is asked about the blend.",
        Role.TRAINING, default=0.0, later=True)]
    cutmix: Annotated[float, Hyperparameter(
        "Share of the samples of which a box shows another image; the teacher is asked about the whole.",
        Role.TRAINING, default=0.0, later=True)]
    color_jitter: Annotated[float, Hyperparameter(
        "Brightness, contrast and saturation of the student's view change by up to this share, each by chance.",
        Role.TRAINING, default=0.0, later=True)]
    rand_augment: Annotated[int, Hyperparameter(
        "Magnitude, up to 30, of two of RandAugment's changes to what the student sees, groups of 8 alike; 0: none.",
        Role.TRAINING, whole=True, high=30, default=0, later=True)]
    class_weights: Annotated[str, Hyperparameter(
        "balanced: an image counts in cross-entropy by how rare its class is, all images / (classes * its images).",
        Role.TRAINING, words=("none", "balanced"), default="none", later=True)]
    labels_alone: Annotated[float, Hyperparameter(
        "Share of the epochs, the last ones, with cross-entropy alone: without the teacher's word and added terms.",
        Role.TRAINING, high=0.9, default=0.0, later=True,
        needs=(Role.LOGITS, Role.FEATURES, "attribution_weight", "osakd_weight"))]
    overparameterize: Annotated[str, Hyperparameter(
        "What is learned in place of weights, and merged when shipped: mpo, three tensors for each matrix; "
        "branches, three kernels for each one above 1x1.",
        Role.TRAINING, words=("none", "mpo", "branches"), default="none", later=True)]
    powerprop_alpha: Annotated[float, Hyperparameter(
        "Weights are theta |theta|^(alpha - 1), which draws them towards 0, and are not decayed; 1: they are learned "
        "as they are.",
        Role.TRAINING, low=1, high=5, default=1.0, later=True)]
    sparsity: Annotated[float, Hyperparameter(
        "Share of the weights of convolutions and linear layers, the smallest of all, that are 0 from half of the "
        "training on.",
        Role.TRAINING, high=0.99, default=0.0, later=True)]
    # fmt: on

    def has_labels_alone(self, epoch: int) -> bool:
        """Return whether an epoch, from 1, is one of `labels_alone`: a whole number of them, never the first.

        It is one at least where the share is above 0.
        """
        alone = max(round(self.labels_alone * self.epochs), int(self.labels_alone > 0))
        return max(1, self.epochs - alone) < epoch <= self.epochs

    @property
    def mixes(self) -> bool:
        """Return whether samples may be mixed, so that no table holds what a teacher says of them."""
        return any(self.number(name) > 0 for name in MIXING)

    def value(self, name: str) -> Value:
        """Return the hyperparameter of this name. Raises KeyError where there is none."""
        value: Value = getattr(self, name) if name in _FIELDS else self.settings[name]
        return value

    def number(self, name: str) -> float:
        """Return the hyperparameter of this name, which is a number."""
        return float(self.value(name))

    def uses(self, role: Role) -> bool:
        """Return whether the loss, or what the student sees, needs this of the teacher."""
        return any(self.number(weight) > 0 for weight in weights(role))


_WITH_INIT = {"body_rate": "pretrained", "frozen_blocks": "teacher_prefix"}
MIXING = ("mixup", "cutmix")
"""The hyperparameters that mix images, above 0."""
_FIELDS = tuple(field.name for field in fields(Recipe) if field.name != "settings")


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe of all its fields but `settings`, and all hyperparameters; KeyError where one is missing."""
    given = {**values, **{name: one.cast(values[name]) for name, one in HYPERPARAMETERS.items() if name in values}}
    others = HYPERPARAMETERS.keys() - KNOB_OF.keys() - set(_FIELDS)
    settings = {name: given[name] for name in HYPERPARAMETERS if name in others}
    return Recipe(settings=settings, **{name: given[name] for name in _FIELDS})


def plain_values() -> dict[str, Value]:
    """Return what turns each hyperparameter off, or else its default; those that have neither are not in it."""
    values = {name: one.default if one.off is None else one.off for name, one in HYPERPARAMETERS.items()}
    return {name: value for name, value in values.items() if value is not None}


def _declared() -> dict[str, Hyperparameter]:
    hints = get_type_hints(Recipe, include_extras=True).items()
    declared = {name: hint.__metadata__[0] for name, hint in hints if hasattr(hint, "__metadata__")}
    declared |= {"architecture": NAME, "init": INIT, "body_rate": BODY_RATE, "frozen_blocks": FROZEN_BLOCKS}
    knobs = [(name, knob.declared) for kind in ARCHITECTURES.values() for name, knob in kind.knobs.items()]
    files = (*OBJECTIVES.values(), *TERMS.values())
    for name, one in [*(item for file in files for item in declared_in(file).items()), *knobs]:
        if declared.setdefault(name, one) != one:
            raise ValueError(f"the hyperparameter {name} is declared twice, and not alike; rename one of them")
    # Samplers draw in this order, so that of two hyperparameters must never change: later ones follow, by name.
    first = [name for name in _ORDER if name in declared]
    return {name: declared[name] for name in [*first, *sorted(declared.keys() - set(first))]}


_ORDER = (
    "temperature", "alpha", "overlay_probability", "overlay_strength", "learning_rate", "weight_decay", "batch_size",
    "layers_removed", "width", "objective", "dkd_beta", "attention_weight", "attention_depths", "hint_weight",
    "teacher_tail_weight", "attribution_weight", "init", "overlay_mode", "alignment", "ema_decay", "label_smoothing",
    "cutout", "flip", "decay", "architecture", "stages_removed", "body_rate", "class_weights", "mixup", "cutmix",
    "color_jitter", "rand_augment",
)  # fmt: skip


def _owners(declared: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    own = {name for names in declared.values() for name in names}
    return {name: tuple(owner for owner, names in declared.items() if name in names) for name in sorted(own)}


KNOB_OF = _owners({name: architecture.knobs for name, architecture in ARCHITECTURES.items()})
"""The architectures that a knob belongs to."""
SETTING_OF = _owners({name: declared_in(file) for name, file in OBJECTIVES.items()})
"""The objectives that a hyperparameter of theirs belongs to: with others it has no effect."""
HYPERPARAMETERS = _declared()
"""All of them by name, in the order in which they are suggested."""
SAME_BLOCKS = frozenset({name for name, one in HYPERPARAMETERS.items() if one.same_blocks} | {"init: teacher_prefix"})
"""Weights, and the initialisation, that need a teacher whose first blocks have the structure of the student's."""


def as_written(values: Mapping[str, Value]) -> dict[str, Value]:
    """Leave out the hyperparameters that came later and are at their defaults, as a study file does."""
    unsaid = {name for name, one in HYPERPARAMETERS.items() if one.later and values.get(name) == one.default}
    return {name: value for name, value in values.items() if name not in unsaid}


@cache
def weights(role: Role) -> tuple[str, ...]:
    """Return the weights that ask for this where they are above 0."""
    return tuple(name for name, one in HYPERPARAMETERS.items() if one.is_weight and role in (one.role, *one.also))


@cache
def needs(name: str) -> tuple[str, ...]:
    """Return the weights of which one must be above 0 for a hyperparameter to have an effect; none where it always has.

    Those of an objective need what `objective` needs.
    """
    wanted = HYPERPARAMETERS["objective" if name in SETTING_OF else name].needs
    asked = {weight for need in wanted for weight in (weights(need) if isinstance(need, Role) else (need,))}
    return tuple(weight for weight in HYPERPARAMETERS if weight in asked)


def knobs_of(hyperparameters: Mapping[str, Value]) -> dict[str, Value]:
    """Select the knobs of the student's architecture, by name."""
    knobs = ARCHITECTURES[kind_of(str(hyperparameters["architecture"]))].knobs
    return {name: knob.declared.cast(hyperparameters[name]) for name, knob in knobs.items()}


def own_knobs_of(hyperparameters: Mapping[str, Value]) -> dict[str, Value]:
    """Select the knobs that the student's network itself has, of those of its kind, by name."""
    architecture = str(hyperparameters["architecture"])
    own = ARCHITECTURES[kind_of(architecture)].knobs_of(architecture)
    return {name: value for name, value in knobs_of(hyperparameters).items() if name in own}


def without_effect(values: Mapping[str, Value]) -> tuple[str, ...]:
    """List the hyperparameters of a trial, all of which are given, that change nothing in it.

    They are drawn all the same: a trial without a parameter would take it out of the multivariate sampler.
    """
    architecture, objective = str(values["architecture"]), values["objective"]
    own = ARCHITECTURES[kind_of(architecture)].knobs_of(architecture)

    def idle(name: str) -> bool:
        if (asked := needs(name)) and not any(float(values[weight]) > 0 for weight in asked):
            return True
        if name in SETTING_OF:
            return objective not in SETTING_OF[name]
        if name in KNOB_OF:
            return name not in own
        return values["init"] != _WITH_INIT.get(name, values["init"])

    return tuple(name for name in HYPERPARAMETERS if name in values and idle(name))
