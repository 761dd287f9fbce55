"""Limits to costs as people say them."""

from dataclasses import fields

import pytest

from igkd_hpo.config.cost import StudentCost, parse_limits
from igkd_hpo.config.cost_limit import COSTS, check_under, parse_under, under_as_flags
from igkd_hpo.config.study import Limits
from igkd_hpo.errors import UsageError


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


def test_python_gives_numbers_and_texts_alike() -> None:
    assert check_under({"parameters": "200k", "latency_ms": 5, "macs": 1e-7}) == {
        "parameters": 200_000,
        "latency_ms": 5,
        "macs": 1e-7,
    }
    for wrong in ({"power": 5}, {"macs": float("nan")}, {"macs": float("inf")}, {"macs": True}, {"macs": 0}):
        with pytest.raises(UsageError):
            check_under(wrong)


def test_limits_that_are_told_are_limits_that_can_be_given() -> None:
    limits = {"parameters": 151_882.0, "latency_ms": 2.512}
    assert parse_under(under_as_flags(limits).replace(" --under ", " ").split()) == limits


def test_every_cost_is_one_that_trials_have() -> None:
    assert COSTS.keys() <= {field.name for field in fields(StudentCost)}
    assert Limits.model_fields.keys() <= COSTS.keys()


def test_each_limit_of_a_study_file_can_be_said() -> None:
    assert all(parse_limits([f"{key}=7"]).model_dump()[key] == 7 for key in Limits.model_fields)
