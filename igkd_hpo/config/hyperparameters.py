"""Hyperparameters of a study: one field for each that is declared, a plain value or a range."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from igkd_hpo.config.space import FloatSetting, Frozen, IntSetting, Number, Range, Value, WordSetting
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, MIXING, weights
from igkd_hpo.errors import did_you_mean


@dataclass(frozen=True)
class Within:
    """Validator of a setting: all its values lie from `low` (above it, if `above`) to `high`."""

    low: float
    high: float
    above: bool = False

    def __str__(self) -> str:
        return f"above {self.low:g} and at most {self.high:g}" if self.above else f"from {self.low:g} to {self.high:g}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, setting: Any) -> Any:
        for value in _corners(setting):
            if value < self.low or value > self.high or (self.above and value == self.low):
                raise ValueError(f"{value} is out of range; it must be {self}")
        return setting


@dataclass(frozen=True)
class OneOf:
    """Validator of a setting: all its words are among these."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, setting: Any) -> Any:
        for word in _corners(setting):
            if word not in self.words:
                raise ValueError(f"{word!r} is not one of {', '.join(self.words)}{did_you_mean(word, self.words)}")
        return setting


@dataclass(frozen=True)
class Checked:
    """Validator of a setting: `check` raises ValueError for none of its words."""

    check: Callable[[str], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, setting: Any) -> Any:
        for word in _corners(setting):
            self.check(word)
        return setting


def _corners(setting: Any) -> tuple[Any, ...]:
    return setting.corners() if isinstance(setting, Range) else (setting,)


class _Settings(Frozen):
    """A plain value is fixed; a mapping with a type is searched."""

    def corners(self, key: str) -> tuple[Number, ...]:
        """Return the numbers that bound a setting: its ends, all its choices, or its plain value."""
        return _corners(getattr(self, key))

    def highest(self, key: str) -> Number:
        """Return the largest number that a setting can take."""
        return max(self.corners(key))

    def words(self, key: str) -> tuple[str, ...]:
        """Return the words that a setting can take."""
        return _corners(getattr(self, key))

    @property
    def always_mixes(self) -> bool:
        """Return whether every trial mixes images, see `Recipe.mixes`."""
        return any(min(self.corners(name)) > 0 for name in MIXING)

    def using(self, role: Role) -> list[str]:
        """List the weights that can be above 0 and then ask for this of the teacher."""
        return [name for name in weights(role) if self.highest(name) > 0]

    def searched(self) -> dict[str, Range]:
        """Return the settings that are ranges, by name, in the order of this class."""
        return {name: setting for name, setting in self if isinstance(setting, Range)}

    def grid_size(self) -> int:
        """Return how many configurations the ranges hold that have an end."""
        return math.prod(len(points) for setting in self.searched().values() if (points := setting.points()))

    def fixed(self) -> dict[str, Value]:
        """Return the settings that are plain values, by name."""
        return {name: setting for name, setting in self if not isinstance(setting, Range)}

    def middle(self) -> dict[str, Value]:
        """Return one value for each setting: the middle of a range, geometric on a log scale."""
        return {name: setting.middle if isinstance(setting, Range) else setting for name, setting in self}

    def telling(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Select those of a trial's values that are searched, or differ from the format's default."""
        searched, fields = self.searched(), type(self).model_fields
        return {name: value for name, value in values.items() if name in searched or value != fields[name].default}


def _field(declared: Hyperparameter) -> tuple[Any, Any]:
    setting: Any = WordSetting if declared.is_word else IntSetting if declared.whole else FloatSetting
    rule: OneOf | Checked | Within
    if declared.check is not None:
        rule = Checked(declared.check)
    elif declared.words:
        rule = OneOf(declared.words)
    else:
        rule = Within(declared.low, declared.high, above=declared.above)
    default = ... if declared.default is None else declared.default
    left_out = (lambda value: value == default) if declared.later else None
    return Annotated[setting, rule], Field(default=default, description=declared.help, exclude_if=left_out)


if TYPE_CHECKING:
    Hyperparameters = _Settings
else:
    Hyperparameters = create_model(
        "Hyperparameters",
        __base__=_Settings,
        __doc__=_Settings.__doc__,
        __module__=__name__,
        **{name: _field(declared) for name, declared in HYPERPARAMETERS.items()},
    )
    """One field for each hyperparameter that is declared, in the order in which they are suggested."""
