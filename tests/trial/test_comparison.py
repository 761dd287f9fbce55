"""Terms on features that have nothing to compare: refused before a teacher is trained for them."""

from pathlib import Path

import pytest

import igkd_hpo
from igkd_hpo.errors import StudyFileError

OWN = """
from torch import nn


def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""
STUDY = """
name: flat
dataset: {name: digits}
teacher: {width: 0.25}
hyperparameters:
  architecture: {type: categorical, choices: [timm/lcnet_050, flat_network:make]}
  temperature: 4.0
  alpha: 0.5
  overlay_probability: 0.0
  overlay_strength: 0.0
  learning_rate: 0.1
  hint_weight: 0.1
controls: [student]
n_trials: 2
"""


def test_a_student_without_features_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat_network.py").write_text(OWN)
    (tmp_path / "flat.yaml").write_text(STUDY)
    with pytest.raises(StudyFileError, match=r"^flat: student flat_network:make: .*'s Sequential .*hint_weight"):
        igkd_hpo.prepare("flat.yaml", device="cpu", allow_import="flat_network", progress=False)
    made = {path.name.partition("-")[0] for path in (tmp_path / "storage" / "assets").iterdir()}
    assert "dataset" in made
    assert "teacher" not in made
