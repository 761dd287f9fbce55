"""Strata of a study file: units, order, and what they do not go with."""

from typing import Any

import pytest

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.cost import StudentCost, excess, why_infeasible
from igkd_hpo.config.reading import parse_study, read_study, study_from_json
from igkd_hpo.config.strata import Strata
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.errors import StudyFileError

STUDY = """
name: sizes
dataset: {name: digits}
hyperparameters:
  temperature: 4.0
  alpha: 0.5
  overlay_probability: 0.1
  overlay_strength: 0.5
  learning_rate: 0.1
  width: {type: categorical, choices: [0.25, 1.0]}
"""


def study_with(strata: str, more: str = "") -> Study:
    return parse_study(f"{STUDY}strata: {strata}\n{more}\n", source="file")


def test_ends_have_the_units_of_their_cost() -> None:
    read = study_with("{of: parameters, at: [20k, 600000, 2.5M]}").strata
    assert read == Strata(of="parameters", at=(20e3, 600e3, 2.5e6))
    assert study_with("{of: size_kb, at: [512KB, 2MiB]}").strata == Strata(of="size_kb", at=(512.0, 2048.0))


def test_a_study_with_strata_is_read_back_as_it_was() -> None:
    study = study_with("{of: macs, at: [1M, 2.5M]}")
    assert study_from_json(study.model_dump_json(), source="the database") == study
    assert "strata" not in read_study(builtin_studies()["digits"]).model_dump()


@pytest.mark.parametrize(
    ("strata", "more", "said"),
    [
        ("{of: parameters, at: [600k, 200k]}", "", "200,000 comes after 600,000"),
        ("{of: parameters, at: [200k, 200k]}", "", "200,000 comes after 200,000"),
        ("{of: parameters, at: [200k]}", "", "1 ends; write 2 to 20"),
        ("{of: parameters, at: [200k, 1MB]}", "", "'MB' is no unit of parameters"),
        ("{of: parameters, at: [200k, many]}", "", "'many' is no number"),
        ("{of: parameters, at: [-1, 5]}", "", "-1 is no limit: it must be above 0"),
        ("{of: parameters, at: 7}", "", "strata.at: 7 must be a list"),
        ("{of: parameters, at: [1k, true]}", "", "strata.at[1]: true must be a number"),
        ("{of: latency_ms, at: [5, 8]}", "", "latency_ms is measured"),
        ("{of: latency_ms, at: [5s, 8]}", "", "latency_ms is measured"),
        ("{of: layers, at: [5, 8]}", "", 'strata.of: "layers" is not one of parameters, macs'),
        ("{of: parameters}", "", "strata.at: missing"),
        ("{of: parameters, at: [1k, 2M]}", "limits: {parameters: 1000000}", "2,000,000 is above limits.parameters"),
        (
            "{of: parameters, at: [1k, 2M]}",
            "sampler: {name: grid}\nn_trials: 6",
            "a grid runs every configuration once",
        ),
    ],
)
def test_a_fault_is_one_line(strata: str, more: str, said: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        study_with(strata, more)
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_limits_beside_strata_are_kept() -> None:
    for more in ("limits: {parameters: 2000000}", "limits: {macs: 1000}", "sampler: {name: gp}"):
        assert study_with("{of: parameters, at: [1k, 2M]}", more).strata is not None


def test_the_smallest_end_that_holds_a_size_is_its_stratum() -> None:
    strata = Strata(of="macs", at=(10.0, 20.0))
    first, second = strata.each
    sizes: list[tuple[float | None, Any]] = [(1, first), (10, first), (10.1, second), (20, second), (21, None)]
    for size, expected in [*sizes, (None, None)]:
        assert strata.holding(size) == expected
    assert (second.above, second.end, str(second)) == (10.0, 20.0, "up to 20 multiply-adds")


def test_the_end_of_its_stratum_is_one_more_limit_for_a_student() -> None:
    cost = StudentCost(parameters=600, macs=50, size_kb=2.0)
    small, large = Strata(of="parameters", at=(400.0, 600.0)).each
    assert excess(Limits(macs=100), cost, small) == {"macs": -0.5, "stratum": 0.5}
    assert excess(Limits(macs=100), cost, large) == {"macs": -0.5, "stratum": 0.0}
    assert why_infeasible(Limits(), cost, large) is None
    assert why_infeasible(Limits(), cost, small) == "600 parameters where the stratum it was drawn for ends at 400"
    both = why_infeasible(Limits(macs=40), cost, small)
    assert both is not None
    assert "limits.macs allows 40 and 600 parameters" in both
