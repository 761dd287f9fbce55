"""Ranges: their middle, their nearest point, their grid."""

import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from igkd_hpo.config.hyperparameters import OneOf
from igkd_hpo.config.space import Choices, FloatRange, Frozen, IntRange, WordChoices, WordSetting, shown


@pytest.mark.parametrize(
    ("setting", "middle"),
    [
        (FloatRange(type="float", low=1.0, high=8.0), 4.5),
        (FloatRange(type="float", low=1e-3, high=1e-1, log=True), 1e-2),
        (FloatRange(type="float", low=0.0, high=1.0, step=0.3), 0.6),  # 0.5 lies between 0.3 and 0.6
        (IntRange(type="int", low=2, high=7), 4),
        (IntRange(type="int", low=16, high=64, log=True), 32),
        (IntRange(type="int", low=16, high=64, step=16), 48),  # 40 lies in the middle of 32 and 48
        (Choices(type="categorical", choices=(256, 64, 128)), 128),
        (Choices(type="categorical", choices=(256, 64)), 64),
    ],
)
def test_middle(setting: FloatRange | IntRange | Choices, middle: float) -> None:
    assert setting.middle == pytest.approx(middle, rel=1e-12)


def test_the_grid_keeps_its_last_point() -> None:
    """(0.3 - 0.1) / 0.1 is a little below 2."""
    assert FloatRange(type="float", low=0.1, high=0.3, step=0.1).nearest(1.0) == pytest.approx(0.3)


def test_the_grid_ends_where_the_next_step_would_leave_the_range() -> None:
    assert FloatRange(type="float", low=0.0, high=1.0, step=0.3).nearest(1.0) == pytest.approx(0.9)
    assert IntRange(type="int", low=0, high=10, step=4).nearest(10) == 8


def test_the_nearest_choice() -> None:
    assert Choices(type="categorical", choices=(1, 10, 100)).nearest(60) == 100


low_and_high = st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)).map(lambda pair: (min(pair), max(pair)))


@given(bounds=low_and_high, value=st.floats(-1e4, 1e4))
def test_the_nearest_real_number_is_the_value_cut_to_the_range(bounds: tuple[float, float], value: float) -> None:
    low, high = bounds
    assert FloatRange(type="float", low=low, high=high).nearest(value) == min(max(value, low), high)


@given(low=st.integers(-50, 50), span=st.integers(0, 100), step=st.integers(1, 20), value=st.floats(-200, 200))
def test_the_nearest_whole_number_is_the_best_of_the_grid(low: int, span: int, step: int, value: float) -> None:
    step = min(step, max(span, 1))
    nearest = IntRange(type="int", low=low, high=low + span, step=step).nearest(value)
    grid = range(low, low + span + 1, step)
    assert nearest in grid
    inside = min(max(value, low), low + span)
    assert math.isclose(abs(nearest - inside), min(abs(point - inside) for point in grid))


class Colours(Frozen):
    colour: Annotated[WordSetting, OneOf(("red", "green", "blue"))]


def test_a_word_is_fixed_or_searched() -> None:
    assert Colours(colour="red").colour == "red"
    searched = Colours.model_validate_json('{"colour": {"type": "categorical", "choices": ["blue", "red"]}}').colour
    assert isinstance(searched, WordChoices)
    assert (searched.middle, searched.nearest("red"), searched.nearest("green")) == ("blue", "red", "blue")


@pytest.mark.parametrize("given", ['"gren"', '{"type": "categorical", "choices": ["red", "gren"]}'])
def test_an_unknown_word_is_refused_with_the_near_one(given: str) -> None:
    with pytest.raises(ValidationError, match=r"'gren' .*red, green, blue .*green\?"):
        Colours.model_validate_json(f'{{"colour": {given}}}')


def test_a_word_is_written_once() -> None:
    with pytest.raises(ValidationError, match="red, red repeat a word"):
        WordChoices(type="categorical", choices=("red", "red"))


def test_a_value_as_people_read_it() -> None:
    assert [shown(value) for value in (5e-4, 64, 0.123456, "kd")] == ["0.0005", "64", "0.1235", "kd"]
