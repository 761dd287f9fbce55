"""What a hyperparameter can be in a study file: a plain value, which is fixed, or a mapping, which is searched."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Number = int | float


class Frozen(BaseModel):
    """Immutable, and strict: an unknown key or a value of another type is a fault, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FloatRange(Frozen):
    """Real numbers from `low` to `high`, both included; on a log scale when `log` is true, on a grid when `step` is set."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "FloatRange":
        check_order(self.low, self.high, log=self.log, step=self.step)
        return self

    @property
    def middle(self) -> float:
        """Geometric middle on a log scale, arithmetic otherwise; on the grid when there is one."""
        if self.log:
            return math.sqrt(self.low * self.high)
        return self.nearest((self.low + self.high) / 2)

    def nearest(self, value: float) -> float:
        """The point of the range that lies closest to `value`."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        return self.low + self.step * min(round((inside - self.low) / self.step), int((self.high - self.low) / self.step))

    def corners(self) -> tuple[float, ...]:
        return (self.low, self.high)


class IntRange(Frozen):
    """Whole numbers from `low` to `high`, both included, every `step`-th of them; on a log scale when `log` is true."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "IntRange":
        check_order(self.low, self.high, log=self.log, step=None if self.step == 1 else self.step)
        return self

    @property
    def middle(self) -> int:
        """Geometric middle on a log scale, arithmetic otherwise, as a point of the range."""
        return self.nearest(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def nearest(self, value: float) -> int:
        """The point of the range that lies closest to `value`."""
        inside = min(max(value, self.low), self.high)
        return self.low + self.step * min(round((inside - self.low) / self.step), (self.high - self.low) // self.step)

    def corners(self) -> tuple[int, ...]:
        return (self.low, self.high)


class Choices(Frozen):
    """One of a list of values, in no order."""

    type: Literal["categorical"]
    choices: tuple[Number, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "Choices":
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices {list(self.choices)} repeat a value; write each value once")
        return self

    @property
    def middle(self) -> Number:
        """The middle choice by size."""
        return sorted(self.choices)[(len(self.choices) - 1) // 2]

    def nearest(self, value: float) -> Number:
        """The choice that lies closest to `value`."""
        return min(self.choices, key=lambda choice: abs(choice - value))

    def corners(self) -> tuple[Number, ...]:
        return self.choices


Range = FloatRange | IntRange | Choices


def check_order(low: float, high: float, *, log: bool, step: float | None) -> None:
    """Raise ValueError, which pydantic collects, when no value lies between `low` and `high`."""
    if low > high:
        raise ValueError(f"low {low} is above high {high}; swap them")
    if log and low <= 0:
        raise ValueError(f"log: true needs low above 0, not {low}; raise low or set log: false")
    if log and step is not None:
        raise ValueError("log: true and step exclude each other; remove one of them")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", "missing"))
    return value.type if isinstance(value, FloatRange | IntRange | Choices) else "value"


Kind = Discriminator(
    _kind,
    custom_error_type="range_type",
    custom_error_message="needs a plain value, or a mapping whose type is float, int or categorical",
)

FloatSetting = Annotated[
    Annotated[float, Tag("value")]
    | Annotated[FloatRange, Tag("float")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[Choices, Tag("categorical")],
    Kind,
]
IntSetting = Annotated[
    Annotated[int, Tag("value")] | Annotated[IntRange, Tag("int")] | Annotated[Choices, Tag("categorical")],
    Kind,
]
