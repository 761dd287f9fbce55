"""What a study can search: one field per hyperparameter, each a plain value or a range."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from igkd_hpo.config.space import (
    Choices,
    FloatRange,
    FloatSetting,
    Frozen,
    IntRange,
    IntSetting,
    Number,
    Range,
    Value,
    WordChoices,
    WordSetting,
)
from igkd_hpo.errors import did_you_mean

OBJECTIVES = ("kd", "dkd", "logit_standardization", "dist", "r2kd")  # a file each in distillation/objectives
ALIGNMENTS = ("aligned", "reference_shuffled", "permuted_maps", "smooth_noise", "mean_map")


@dataclass(frozen=True)
class Within:
    """Validator: every value that a setting can take lies from `low` (above it, if `above`) to `high`."""

    low: float
    high: float
    above: bool = False

    def __str__(self) -> str:
        return f"above {self.low:g} and at most {self.high:g}" if self.above else f"from {self.low:g} to {self.high:g}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, setting: Any) -> Any:
        values = setting.corners() if isinstance(setting, FloatRange | IntRange | Choices) else (setting,)
        for value in values:
            if value < self.low or value > self.high or (self.above and value == self.low):
                raise ValueError(f"{value} is out of range; it must be {self}")
        return setting


@dataclass(frozen=True)
class OneOf:
    """Validator: every word that a setting can take is one of these."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, setting: str | WordChoices) -> str | WordChoices:
        for given in setting.choices if isinstance(setting, WordChoices) else (setting,):
            if given not in self.words:
                near = did_you_mean(given, self.words)
                raise ValueError(f"{given!r} is not one of {', '.join(self.words)}{near}")
        return setting


NEEDS = {
    "temperature": ("alpha", "teacher_tail_weight"),
    "objective": ("alpha",),
    "dkd_beta": ("alpha",),
    "attention_depths": ("attention_weight",),
    "overlay_strength": ("overlay_probability",),
    "overlay_probability": ("overlay_strength",),
    "overlay_mode": ("overlay_probability",),
}
"""A setting, and the weights of which one must be above 0 for it to matter."""


class Hyperparameters(Frozen):
    """A plain value is fixed; a mapping with a type is searched."""

    temperature: Annotated[FloatSetting, Within(0, 100, above=True)]
    """Softens both softmaxes of the distillation term."""
    alpha: Annotated[FloatSetting, Within(0, 1)]
    """Weight of the distillation term; 1 - alpha weights cross-entropy."""
    overlay_probability: Annotated[FloatSetting, Within(0, 1)]
    """Share of the training samples that get an overlay."""
    overlay_strength: Annotated[FloatSetting, Within(0, 1)]
    """0 leaves the image alone, 1 shows nothing but the map."""
    learning_rate: Annotated[FloatSetting, Within(0, 100, above=True)]
    """Peak learning rate."""
    weight_decay: Annotated[FloatSetting, Within(0, 1)] = 5.0e-4
    """L2 penalty (sgd, adam) or decoupled decay (adamw)."""
    batch_size: Annotated[IntSetting, Within(2, 65536)] = 128
    """Images in a step."""
    layers_removed: Annotated[IntSetting, Within(0, 17)] = 5
    """Blocks cut from the end of MobileNet-V2; 5 of the full-width one is the paper's 4.1x student."""
    width: Annotated[FloatSetting, Within(0.1, 4)] = 1.0
    """Channel multiplier."""
    objective: Annotated[WordSetting, OneOf(OBJECTIVES)] = "kd"
    """The distillation term: kd, dkd, logit_standardization, dist or r2kd."""
    dkd_beta: Annotated[FloatSetting, Within(0, 100)] = 2.0
    """dkd alone: weight of the order among the wrong classes."""
    attention_weight: Annotated[FloatSetting, Within(0, 1000)] = 0.0
    """Weight of attention transfer, which is added to the loss."""
    attention_depths: Annotated[WordSetting, OneOf(("middle", "last", "stages"))] = "middle"
    """Blocks whose attention is compared: middle (the paper's), last, or stages (the last of each resolution)."""
    hint_weight: Annotated[FloatSetting, Within(0, 1000)] = 0.0
    """Weight of the hint: what the student's last block gives against the teacher's block of that number."""
    teacher_tail_weight: Annotated[FloatSetting, Within(0, 1000)] = 0.0
    """Weight of the distillation term on what the rest of the teacher makes of the student's last block."""
    attribution_weight: Annotated[FloatSetting, Within(0, 1000)] = 0.0
    """Weight of attribution matching: the student's own map against the teacher's; two to three times the work."""
    init: Annotated[WordSetting, OneOf(("random", "teacher_prefix"))] = "random"
    """Weights that a student begins with: random, or those of the teacher's first blocks."""

    overlay_mode: Annotated[WordSetting, OneOf(("blend", "multiply", "background"))] = "blend"
    """blend: image and map mixed; multiply: dark where the map is low; background: there faded to the mean colour."""
    alignment: Annotated[WordSetting, OneOf(ALIGNMENTS)] = "aligned"
    """Whose map and logits an image gets; anything but aligned is a negative control."""
    ema_decay: Annotated[FloatSetting, Within(0, 0.99999)] = 0.0
    """Per step; the student is the running average of the weights; 0: it is the last weights."""
    label_smoothing: Annotated[FloatSetting, Within(0, 1)] = 0.0
    """Share of a label that is spread over all classes, in the cross-entropy term."""
    cutout: Annotated[IntSetting, Within(0, 1024)] = 0
    """Side, in pixels, of a square that is cut out of the student's view; 0 cuts out nothing."""
    flip: Annotated[WordSetting, OneOf(("random", "alternating"))] = "random"
    """With horizontal_flip: by chance, or each image in every second epoch."""
    decay: Annotated[WordSetting, OneOf(("all", "weights"))] = "all"
    """What weight_decay acts on; weights leaves out batch normalisation and biases."""

    def highest(self, key: str) -> Number:
        """The largest number that this setting can take."""
        setting = getattr(self, key)
        return max(setting.corners()) if isinstance(setting, FloatRange | IntRange | Choices) else setting

    def words(self, key: str) -> tuple[str, ...]:
        """The words that this setting can take."""
        setting = getattr(self, key)
        return setting.choices if isinstance(setting, WordChoices) else (setting,)

    def searched(self) -> dict[str, Range]:
        """The settings that are ranges, by name, in the order of this class."""
        settings = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: s for name, s in settings.items() if isinstance(s, Range)}

    def fixed(self) -> dict[str, Value]:
        """The settings that are plain values, by name."""
        settings = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: s for name, s in settings.items() if not isinstance(s, Range)}

    def middle(self) -> dict[str, Value]:
        """One value for each setting: the middle of what is searched, geometric on a log scale."""
        return self.fixed() | {name: setting.middle for name, setting in self.searched().items()}

    def telling(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Those of a trial's values that tell something: of searched settings, and others than the format's default."""
        searched, fields = self.searched(), type(self).model_fields
        return {
            name: value for name, value in values.items() if name in searched or value != fields[name].get_default()
        }
