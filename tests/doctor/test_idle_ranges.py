"""A range that cannot change the result is named; one that can is not."""

import re

import pytest

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import parse_study
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.study_file import check_study_file

STUDY = """
name: digits
dataset: {name: digits}
hyperparameters:
  temperature: 4.0
  alpha: ALPHA
  overlay_probability: 0.0
  overlay_strength: 0.5
  learning_rate: {type: float, low: 1.0e-3, high: 1.0, log: true}
"""
BETA = "dkd_beta: {type: float, low: 1.0, high: 8.0}"
DEPTHS = "attention_depths: {type: categorical, choices: [middle, stages]}"
OBJECTIVE = "objective: {type: categorical, choices: [kd, dkd]}"


def found(alpha: float, *keys: str) -> tuple[CheckVerdict, str]:
    names = [key.partition(":")[0] for key in keys]
    kept = [line for line in STUDY.splitlines() if line.strip().partition(":")[0] not in names]
    text = "\n".join([*kept, *(f"  {key}" for key in keys)]).replace("ALPHA", str(alpha))
    checks = {check.name: check for check in check_study_file(parse_study(text, source="-"))}
    return checks["search space"].verdict, checks["search space"].found


@pytest.mark.parametrize(
    ("alpha", "keys", "message"),
    [
        (0.0, [OBJECTIVE], "objective .* alpha is .* 0"),
        (0.0, ["temperature: {type: float, low: 1.0, high: 8.0}"],
         "temperature .* alpha and teacher_tail_weight are .* 0"),
        (0.5, [BETA], "dkd_beta .* objective is never dkd"),
        (0.5, [DEPTHS], "attention_depths .* attention_weight is .* 0"),
        (0.5, ["objective: {type: categorical, choices: [dist]}"], "objective .* one value"),
        (0.5, ["overlay_strength: {type: float, low: 0.1, high: 0.9}"],
         "overlay_strength .* overlay_probability is .* 0"),
        (0.0, ["alignment: mean_map"],
         ("alignment .*: alpha, overlay_probability, attention_weight, hint_weight, "
          "teacher_tail_weight, attribution_weight, rtk_weight, skt_inter_weight, skt_intra_weight are 0")),
        (0.0, ["labels_alone: {type: float, low: 0.0, high: 0.5}"], "labels_alone .* alpha .* always 0"),
        (0.5, ["rtk_keys: {type: int, low: 1, high: 5}"], "rtk_keys .* rtk_weight is .* 0"),
        (0.5, ["osakd_neighbors: {type: int, low: 5, high: 50}"], "osakd_neighbors .* osakd_weight is .* 0"),
        (0.5, ["foster_beta: {type: float, low: 0.5, high: 0.99}"], "foster_beta .* objective is never foster"),
    ],
)  # fmt: skip
def test_a_range_without_effect_is_named(alpha: float, keys: list[str], message: str) -> None:
    verdict, told = found(alpha, *keys)
    assert verdict is CheckVerdict.WARNING
    assert re.fullmatch(message, told)


@pytest.mark.parametrize(
    ("alpha", "keys"),
    [
        (0.5, [OBJECTIVE, BETA]),
        (0.5, ["objective: dkd", BETA]),
        (0.0, ["temperature: {type: float, low: 1.0, high: 8.0}", "teacher_tail_weight: 1.0"]),
        (0.0, [DEPTHS, "attention_weight: {type: float, low: 0.0, high: 8.0}"]),
    ],
)
def test_a_range_with_effect_is_not(alpha: float, keys: list[str]) -> None:
    assert found(alpha, *keys)[0] is CheckVerdict.OK


def test_the_built_in_studies_search_nothing_in_vain() -> None:
    for path in builtin_studies().values():
        (check,) = [
            check
            for check in check_study_file(parse_study(path.read_text(encoding="utf-8"), source=path.name))
            if check.name == "search space"
        ]
        assert check.verdict is CheckVerdict.OK, path
