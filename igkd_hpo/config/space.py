"""Settings of a hyperparameter in a study file: a plain value, which is fixed, or a mapping, which is searched."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

LARGEST_SEED = 2**31 - 1  # NumPy and scikit-learn take 32 bits; the other half is left to seed + trial number
Number = int | float
Value = Number | str


class Frozen(BaseModel):
    """An immutable, strict model: an unknown key or a value of another type is a fault, never a guess."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,  # a validator is built when it is first used: a section's is part of the whole file's
    )

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """Return the JSON schema, with the docstrings of the keys as their descriptions."""
        from igkd_hpo.config.key_help import describe_keys  # nothing else needs Python's parser

        describe_keys(Frozen)
        return super().model_json_schema(*args, **options)


def check_order(value: Any, info: ValidationInfo) -> Any:
    """Raise ValueError, which pydantic collects, where `high`, `log` or `step` does not go with the keys before it."""
    low, high = info.data.get("low"), info.data.get("high")
    if info.field_name == "high" and low is not None and low > value:
        raise ValueError(f"low {low} is above high {value}; swap them")
    if info.field_name == "log" and value and low is not None and low <= 0:
        raise ValueError(f"log: true needs low above 0, not {low}; raise low or set log: false")
    if info.field_name == "step" and value is not None:
        if info.data.get("log") and (value != 1 or isinstance(value, float)):
            raise ValueError("log: true and step exclude each other; remove one of them")
        if low is not None and high is not None and value > high - low > 0:
            advice = "lower step, or write the plain value"
            raise ValueError(f"{value} steps over everything from {low} to {high}; {advice}")
    return value


class FloatRange(Frozen):
    """Real numbers from `low` to `high`, both included; on a log scale with `log`, on a grid with `step`."""

    type: Literal["float"]
    """Real numbers."""
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Search the logarithm: for what spans powers of ten."""
    step: float | None = Field(default=None, gt=0)
    """Only low, low + step, low + 2 step …"""

    _ordered = field_validator("high", "log", "step")(check_order)

    @property
    def middle(self) -> float:
        """Geometric middle on a log scale, arithmetic otherwise; on the grid when there is one."""
        if self.log:
            return math.sqrt(self.low * self.high)
        return self.nearest((self.low + self.high) / 2)

    def nearest(self, value: float) -> float:
        """Return the point of the range that lies closest to `value`."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        return self.low + self.step * min(round((inside - self.low) / self.step), self._last)

    def points(self) -> Sequence[float] | None:
        """Return all values; None where there is no end of them."""
        return None if self.step is None else [self.low + self.step * number for number in range(self._last + 1)]

    @property
    def _last(self) -> int:
        # (0.3 - 0.1) / 0.1 is 1.9999999999999998: the tolerance, which Optuna uses too, keeps the grid's last point.
        return math.floor((self.high - self.low) / (self.step or math.inf) + 1e-8)

    def corners(self) -> tuple[float, ...]:
        return (self.low, self.high)


class IntRange(Frozen):
    """Whole numbers from `low` to `high`, both included, every `step`-th of them; on a log scale when `log` is true."""

    type: Literal["int"]
    """Whole numbers."""
    low: int
    """Smallest value."""
    high: int
    """Largest value."""
    log: bool = False
    """Search the logarithm: for what spans powers of ten."""
    step: int = Field(default=1, ge=1)
    """Only low, low + step, low + 2 step …"""

    _ordered = field_validator("high", "log", "step")(check_order)

    @property
    def middle(self) -> int:
        """Geometric middle on a log scale, arithmetic otherwise, as a point of the range."""
        return self.nearest(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def nearest(self, value: float) -> int:
        """Return the point of the range that lies closest to `value`."""
        inside = min(max(value, self.low), self.high)
        return self.low + self.step * min(round((inside - self.low) / self.step), (self.high - self.low) // self.step)

    def points(self) -> Sequence[int]:
        """Return all values."""
        return range(self.low, self.high + 1, self.step)

    def corners(self) -> tuple[int, ...]:
        return (self.low, self.high)


def check_distinct(choices: tuple[Value, ...]) -> tuple[Value, ...]:
    """Raise ValueError, which pydantic collects, where a value or a word is there twice."""
    if len(set(choices)) < len(choices):
        advice = "a word; write each once" if isinstance(choices[0], str) else "a value; write each value once"
        raise ValueError(f"{', '.join(map(str, choices))} repeat {advice}")
    return choices


class Choices(Frozen):
    """One of a list of values, in no order."""

    type: Literal["categorical"]
    """From a list."""
    choices: tuple[Number, ...] = Field(min_length=1)
    """The values."""

    _distinct = field_validator("choices")(check_distinct)

    @property
    def middle(self) -> Number:
        """The middle choice by size."""
        return sorted(self.choices)[(len(self.choices) - 1) // 2]

    def nearest(self, value: float) -> Number:
        """Return the choice that lies closest to `value`."""
        return min(self.choices, key=lambda choice: abs(choice - value))

    def points(self) -> Sequence[Number]:
        """Return all values."""
        return self.choices

    def corners(self) -> tuple[Number, ...]:
        return self.choices


class WordChoices(Frozen):
    """One of a list of words."""

    type: Literal["categorical"]
    """From a list."""
    choices: tuple[str, ...] = Field(min_length=1)
    """The words."""

    _distinct = field_validator("choices")(check_distinct)

    @property
    def middle(self) -> str:
        """The first word, which a control takes, and a file's author thinks of first."""
        return self.choices[0]

    def nearest(self, value: str) -> str:
        """Return the word itself, or the first one where the list does not have it."""
        return value if value in self.choices else self.choices[0]

    def points(self) -> Sequence[str]:
        """Return all words."""
        return self.choices

    def corners(self) -> tuple[str, ...]:
        return self.choices


Range = FloatRange | IntRange | Choices | WordChoices


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", "missing"))
    return value.type if isinstance(value, Range) else "value"


def _discriminator(kinds: str) -> Discriminator:
    # `faults.py` makes the message from the context; a message here would not show the value at fault.
    return Discriminator(
        _kind, custom_error_type="range_type", custom_error_message=kinds, custom_error_context={"kinds": kinds}
    )


def _whole(setting: Any) -> Any:
    for choice in setting.choices if isinstance(setting, Choices) else ():
        if not isinstance(choice, int):
            raise ValueError(f"choice {choice} is not a whole number; write whole numbers only")
    return setting


FloatSetting = Annotated[
    Annotated[float, Tag("value")]
    | Annotated[FloatRange, Tag("float")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[Choices, Tag("categorical")],
    _discriminator("float, int, categorical"),
]
IntSetting = Annotated[
    Annotated[int, Tag("value")] | Annotated[IntRange, Tag("int")] | Annotated[Choices, Tag("categorical")],
    _discriminator("int, categorical"),
    AfterValidator(_whole),
]
WordSetting = Annotated[
    Annotated[str, Tag("value")] | Annotated[WordChoices, Tag("categorical")], _discriminator("categorical")
]


def shown(value: Value) -> str:
    """Write a plain value as people read it: 0.0005, 64, kd."""
    return value if isinstance(value, str) else f"{value:.4g}"


def shown_range(setting: Range) -> str:
    """Write a range as people read it: 1 to 8, log scale."""
    match setting:
        case Choices(choices=choices) | WordChoices(choices=choices):
            return "one of " + ", ".join(map(shown, choices))
        case FloatRange(low=low, high=high, log=log) | IntRange(low=low, high=high, log=log):
            step = f", step {setting.step:g}" if setting.step not in (None, 1) else ""
            return f"{low:g} to {high:g}{', log scale' if log else ''}{step}"
