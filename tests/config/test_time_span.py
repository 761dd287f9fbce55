"""Spans of time as people write them."""

import pytest

from igkd_hpo.config.time_span import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("8h", 28_800), ("2d", 172_800), ("1h30m", 5_400), ("1h 5s", 3_605)],
)
def test_units_and_their_sums(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "10", "8x", "-8h", "30m1h", "1.5h", "8H", 600, None])
def test_what_is_no_span_is_named_with_the_remedy(text: object) -> None:
    with pytest.raises(ValueError, match=r"is no span of time; write 90s, 10m, 8h") as error:
        seconds_of(text)
    assert repr(text) in str(error.value)
