"""Numbers as people read them."""

import pytest

from igkd_hpo.config.cost_limit import parse_under
from igkd_hpo.words import (
    byte_size,
    duration,
    percent,
    points_between,
    rough_duration,
    short_count,
    times_smaller,
)


def test_the_difference_is_that_of_the_figures_shown() -> None:
    assert percent(0.95006) == "95.01 %"
    assert percent(0.95004) == "95.00 %"
    assert points_between(0.95006, 0.95004) == "+0.01 points"


@pytest.mark.parametrize(
    ("factor", "text"),
    [(4.6, "4.6 times smaller than"), (0.7, "1.4 times larger than"), (1.04, "as large as"), (0.96, "as large as")],
)
def test_a_student_that_is_larger_is_called_so(factor: float, text: str) -> None:
    assert times_smaller(factor) == text


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (59.6, "1:00"), (245, "4:05"), (7445, "2:04:05")])
def test_a_time(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(617_472, "603 KiB"), (1_258_291, "1.2 MiB"), (412_000_000, "393 MiB"), (1 << 30, "1.0 GiB"), (0, "0.0 KiB")],
)
def test_a_size(n_bytes: int, text: str) -> None:
    assert byte_size(n_bytes) == text


def test_short_counts_are_those_that_limits_are_given_in() -> None:
    counts = {800: "800", 20_000: "20k", 1_500_000: "1.5M", 2e9: "2G", 151_882: "151.9k", 0.25: "0.25"}
    assert {count: short_count(count) for count in counts} == counts
    assert parse_under([f"macs={short_count(1_500_000)}"]) == {"macs": 1.5e6}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2, "10 s"),
        (44, "40 s"),
        (164, "3 minutes"),
        (1700, "30 minutes"),
        (5399, "90 minutes"),
        (5485, "1.5 hours"),
        (6055, "1.5 hours"),
        (7148, "2 hours"),
        (7199, "2 hours"),
        (9000, "2.5 hours"),
    ],
)
def test_an_estimate_claims_no_more_than_it_knows(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
