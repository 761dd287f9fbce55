"""A curve as one line of text, by hand-made values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.terminal.sparkline import sparkline


def test_the_eight_levels_from_low_to_high() -> None:
    values = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
    assert sparkline(values, total=9, width=9, low=0.0, high=1.0) == "▁▂▃▄▅▆▇██"
    assert sparkline([-1.0, 2.0], total=2, width=2, low=0.0, high=1.0) == "▁█"


def test_it_is_as_long_as_the_values_reach() -> None:
    assert sparkline([], total=4, width=8, low=0.0, high=1.0) == ""
    assert sparkline([0.0, 1.0], total=4, width=4, low=0.0, high=1.0) == "▁█"
    assert sparkline([0.0, 1.0], total=4, width=8, low=0.0, high=1.0) == "▁▁██"


def test_a_cell_of_several_values_shows_the_last_that_is_there() -> None:
    assert sparkline([0.0, 1.0, 1.0, 0.0, 0.5], total=8, width=4, low=0.0, high=1.0) == "█▁▅"


def test_values_without_a_difference_are_drawn_in_the_middle() -> None:
    assert sparkline([0.9, 0.9], total=2, width=2, low=0.9, high=0.9) == "▅▅"


@given(
    values=st.lists(st.floats(0, 1), max_size=400),
    missing=st.integers(0, 400),
    width=st.integers(1, 100),
    low=st.floats(0, 1),
    high=st.floats(0, 1),
)
def test_it_never_grows_beyond_its_width_and_fills_it_in_the_end(
    values: list[float], missing: int, width: int, low: float, high: float
) -> None:
    total = max(len(values) + missing, 1)
    drawn = sparkline(values, total=total, width=width, low=low, high=high)
    assert len(drawn) <= width
    assert (len(drawn) == width) >= (len(values) == total)
    assert bool(drawn) == bool(values)


def test_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="3 values in 0 cells"):
        sparkline([1.0], total=3, width=0, low=0.0, high=1.0)
