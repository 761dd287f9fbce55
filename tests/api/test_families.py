"""A student of one family of networks learns from the features of a teacher of another."""

from typing import Any

import pytest
import yaml

import igkd_hpo
from tests.cli.conftest import STUDY, Workspace

FEATURES: dict[str, Any] = {
    "architecture": "timm/lcnet_050",
    "stages_removed": 1,
    "overlay_probability": 0.0,
    "attention_weight": 0.1,
    "attention_depths": "stages",
    "hint_weight": 0.1,
}


def test_a_study_across_families_runs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    study = yaml.safe_load(STUDY)
    settings = {
        name: value for name, value in study["hyperparameters"].items() if name not in ("layers_removed", "width")
    }
    changed = {"name": "families", "n_trials": 2, "controls": ["at"], "training": {"epochs": 1}}
    monkeypatch.chdir(workspace.folder)
    done = igkd_hpo.launch(
        study | changed | {"hyperparameters": settings | FEATURES}, engine="in_process", device="cpu", progress=False
    )
    assert [(trial.state, trial.control) for trial in done.trials] == [("COMPLETE", "at"), ("COMPLETE", None)]
    values = done.trials[1].hyperparameters
    assert {name: values[name] for name in FEATURES} == FEATURES
