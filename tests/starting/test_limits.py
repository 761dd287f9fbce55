"""Limits as people say them."""

import pytest

from igkd_hpo.config.study import Limits
from igkd_hpo.errors import UsageError
from igkd_hpo.starting.limits import parse_limits


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        ([], Limits()),
        (["parameters=500k"], Limits(parameters=500_000)),
        (["parameters=1.5M", "macs=2G"], Limits(parameters=1_500_000, macs=2e9)),
        (["parameters = 2e3"], Limits(parameters=2000)),
        (["latency_ms=5ms"], Limits(latency_ms=5)),
        (["latency_ms=0.5s"], Limits(latency_ms=500)),
        (["size_kb=1MB", "peak_ram_kb=64KiB"], Limits(size_kb=1024, peak_ram_kb=64)),
    ],
)
def test_units_are_those_of_the_key(texts: list[str], limits: Limits) -> None:
    assert parse_limits(texts) == limits


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["parameter=5"], "did you mean parameters?"),
        (["ram=5"], "there are: parameters, macs"),
        (["parameters=5m"], "did you mean M?"),
        (["parameters=5q"], "there are: k, M, G"),
        (["latency_ms=5k"], "there are: ms, s"),
        (["parameters"], "KEY=VALUE"),
        (["parameters="], "no number"),
        (["parameters=many"], "no number"),
        (["macs=1.2.3"], "no number"),
        (["parameters=0"], "above 0"),
        (["macs=-1"], "above 0"),
        (["macs=1e999"], "above 0"),
        (["parameters=0.4"], "at least 1"),
        (["parameters=1", "parameters=2"], "twice"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_was_meant(texts: list[str], named: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_limits(texts)
    assert named in str(refused.value)


def test_each_limit_of_a_study_file_can_be_said() -> None:
    assert all(parse_limits([f"{key}=7"]).model_dump()[key] == 7 for key in Limits.model_fields)
