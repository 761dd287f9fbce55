"""The benchmark of objectives: what it compares, its statistics, its words, and a small one that goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy

from benchmarks import objectives
from benchmarks.objectives import Result, arm_study, own_settings, paired_contrasts, ranking
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.objectives import OBJECTIVES
from igkd_hpo.distillation.terms import TERMS
from igkd_hpo.errors import StudyFileError
from tests.cli.conftest import STUDY, Workspace, prepared, workspace

__all__ = ["prepared", "workspace"]
CIFAR = Path(objectives.__file__).with_name("objectives-cifar.yaml")


def test_every_objective_and_term_is_tuned_by_its_own_settings_and_the_same_common_ones() -> None:
    base = read_study(CIFAR)
    studies = {name: arm_study(base, name, sampler_seed=3) for name in own_settings()}
    assert studies.keys() == {"plain", *OBJECTIVES, *TERMS, "overparameterize", "powerprop"}
    common = base.hyperparameters.searched()
    for name, own in own_settings().items():
        study, searched = studies[name], studies[name].hyperparameters.searched()
        without_teacher = name in ("plain", "osakd")
        expected = {key for key in common if not without_teacher or key == "learning_rate"} - (
            {"temperature"} if name == "logit_mse" else set()
        )
        assert searched.keys() == {*expected, *own}
        assert all(searched[key] == common[key] for key in expected)
        assert (study.sampler.seed, study.controls, study.training) == (3, (), base.training)
        weights = {key for key, one in objectives.HYPERPARAMETERS.items() if one.is_weight and key in own}
        assert all(study.hyperparameters.highest(key) > 0 for key in weights)
    assert studies["plain"].hyperparameters.highest("alpha") == studies["osakd"].hyperparameters.highest("alpha") == 0


def changed(study: Study, key: str, value: object) -> Study:
    document = json.loads(study.model_dump_json())
    document["hyperparameters"][key] = value
    return Study.model_validate_json(json.dumps(document))


def test_weights_of_features_are_a_hundredth_between_families_and_some_cannot_be_had() -> None:
    base = read_study(CIFAR)
    other = changed(base, "architecture", "timm/lcnet_050")
    within, between = (arm_study(each, "hint", sampler_seed=0).hyperparameters for each in (base, other))
    assert (within.highest("hint_weight"), between.highest("hint_weight")) == (10, 1)
    assert arm_study(other, "attribution_matching", sampler_seed=0).hyperparameters.highest("attribution_weight") == 10
    assert arm_study(other, "attention", sampler_seed=0).hyperparameters.highest("attention_weight") == 30
    with pytest.raises(StudyFileError):
        arm_study(other, "teacher_tail", sampler_seed=0)


def test_a_given_term_and_range_of_the_file_are_left_out() -> None:
    base = changed(read_study(CIFAR), "hint_weight", 1.0)
    base = changed(base, "cutout", {"type": "int", "low": 0, "high": 8})
    settings = arm_study(base, "kd", sampler_seed=0).hyperparameters
    assert (settings.highest("hint_weight"), settings.corners("cutout")) == (0, (4,))


def test_of_two_arms_it_is_the_paired_t_test() -> None:
    first, second = [0.5, 0.61, 0.56, 0.7], [0.47, 0.57, 0.55, 0.66]
    (found,) = paired_contrasts([first, second], [(0, 1)], resolution=1e-6)
    expected = scipy.stats.ttest_rel(first, second)
    interval = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high))


def test_what_a_seed_does_to_all_arms_alike_counts_for_nothing() -> None:
    table = np.random.default_rng(0).normal(0.5, 0.01, (4, 3))
    pairs = [(1, 0), (2, 0), (3, 0)]
    moved = paired_contrasts(np.add(table, [0.0, 0.2, -0.1]).tolist(), pairs, resolution=1e-6)
    for one, other in zip(paired_contrasts(table.tolist(), pairs, resolution=1e-6), moved, strict=True):
        assert one.difference.low == pytest.approx(other.difference.low)
        assert one.p_value == pytest.approx(other.p_value)


def test_errors_of_the_family_are_few() -> None:
    random, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        table = random.normal(0.4, 0.012, (12, 3)) + random.normal(0, 0.01, 3)
        found = paired_contrasts(table.tolist(), [(arm, 0) for arm in range(1, 12)], resolution=1e-4)
        wrong += any(contrast.significant for contrast in found)
    assert wrong <= 18  # 5 % would be 10


def a_line(arm: str, *test: float) -> Result:
    return Result(
        arm=arm, key="", study=arm, validation=0.5, settings={"learning_rate": 0.1},
        test={str(seed): value for seed, value in enumerate(test)}, test_images=1000, commit=None,
    )  # fmt: skip


def test_a_ranking_says_what_is_better_worse_and_a_tie() -> None:
    lines = [
        a_line("kd", 0.50, 0.52, 0.51), a_line("plain", 0.30, 0.32, 0.315), a_line("dkd", 0.501, 0.521, 0.509),
        a_line("hint", 0.60, 0.62, 0.614), a_line("rtk", 0.9, 0.9),
    ]  # fmt: skip
    text = ranking(lines, 3).splitlines()
    assert [line.split()[1] for line in text[1:6]] == ["rtk", "hint", "dkd", "kd", "plain"]
    assert next(line for line in text if "diverged" in line).split()[-1] == "rtk."
    kd, plain = (next(line for line in text if line.startswith(f"Against {name} ")) for name in ("kd", "plain"))
    assert kd.partition("): ")[2].split("; ") == ["better hint", "worse plain", "a tie, since it cannot be told: dkd."]
    assert kd.startswith("Against kd (3 comparisons, paired by 3 seeds")
    assert plain.endswith("): better hint, dkd, kd.")
    assert text[-1].startswith("hint is better than every other")
    assert ranking(lines[:3], 3).splitlines()[-1].startswith("The first, dkd, cannot be told from kd (")


def test_a_small_one_goes_on_where_it_stopped(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace.folder)
    workspace.write(STUDY.replace("epochs: 4", "epochs: 1"))
    fixed = ["study.yaml", "--trials", "1", "--seeds", "2", "--device", "cpu", "--objectives"]
    assert objectives.main([*fixed, "plain"]) == 0
    capsys.readouterr()
    (first,) = written = objectives.finished(Path("objectives.jsonl"))
    assert (first.arm, len(first.test), first.settings.keys()) == ("plain", 2, {"learning_rate"})
    opened, teachers = Path("storage/logs/test-split.log").read_text(), sorted(Path("storage/assets").glob("teacher-*"))

    assert objectives.main([*fixed, "plain", "kd"]) == 0
    assert [line.arm for line in objectives.finished(Path("objectives.jsonl"))] == ["plain", "kd"]
    assert objectives.finished(Path("objectives.jsonl"))[:1] == written
    assert len(Path("storage/logs/test-split.log").read_text().splitlines()) == len(opened.splitlines()) + 1
    assert "Against plain (1 comparison, paired by 2 seeds" in capsys.readouterr().out
    assert sorted(Path("storage/assets").glob("teacher-*")) == teachers

    assert objectives.main([*fixed, "kd", "--output", "study.yaml"]) == 1  # another file is left as it is
    assert Path("study.yaml").read_text().startswith("version: 1")
