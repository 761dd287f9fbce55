"""What a study can search: one field per hyperparameter that is declared, each a plain value or a range."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, create_model
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
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, weights
from igkd_hpo.errors import did_you_mean


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


class _Settings(Frozen):
    """A plain value is fixed; a mapping with a type is searched."""

    def corners(self, key: str) -> tuple[Number, ...]:
        """The numbers that bound what this setting can take."""
        setting = getattr(self, key)
        return setting.corners() if isinstance(setting, FloatRange | IntRange | Choices) else (setting,)

    def highest(self, key: str) -> Number:
        """The largest number that this setting can take."""
        return max(self.corners(key))

    def words(self, key: str) -> tuple[str, ...]:
        """The words that this setting can take."""
        setting = getattr(self, key)
        return setting.choices if isinstance(setting, WordChoices) else (setting,)

    def using(self, role: Role) -> list[str]:
        """The weights that can be above 0 and then ask this of the teacher."""
        return [name for name in weights(role) if self.highest(name) > 0]

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


def _field(known: Hyperparameter) -> tuple[Any, Any]:
    setting: Any = WordSetting if known.words else IntSetting if known.whole else FloatSetting
    rule = OneOf(known.words) if known.words else Within(known.low, known.high, above=known.above)
    default = ... if known.default is None else known.default
    return Annotated[setting, rule], Field(default=default, description=known.help)


if TYPE_CHECKING:
    Hyperparameters = _Settings
else:
    Hyperparameters = create_model(
        "Hyperparameters",
        __base__=_Settings,
        __doc__=_Settings.__doc__,
        __module__=__name__,
        **{name: _field(known) for name, known in HYPERPARAMETERS.items()},
    )
    """One field for each hyperparameter that is declared, in the order in which they are suggested."""
