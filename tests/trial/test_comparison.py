"""Terms on features that have nothing to compare: refused before a teacher is trained for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import igkd_hpo
from igkd_hpo.config.reading import parse_study
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.trial.comparison import check_features

OWN = """
from torch import nn


def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))


def lone(num_classes):
    body = nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    network = nn.Sequential(*body)
    network.taps = {"0": 2}
    return network
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


def test_pairs_of_places_need_a_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_place_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    alone = STUDY.replace("{type: categorical, choices: [timm/lcnet_050, flat_network:make]}", "one_place_network:lone")
    settings = Settings(
        paths=Paths(root=tmp_path), storage_url="", data_root=tmp_path, allow_import=frozenset({"one_place_network"})
    )
    digits: Any = SimpleNamespace(num_classes=10, image_size=(8, 8), mean=(0.5,) * 3, std=(0.3,) * 3)
    check_features(parse_study(alone.replace("hint_weight", "skt_intra_weight"), source="-"), digits, settings)
    with pytest.raises(StudyFileError, match=r"^flat: student one_place_network:lone: .* 2 alone .*skt_inter_"):
        check_features(parse_study(alone.replace("hint_weight", "skt_inter_weight"), source="-"), digits, settings)
