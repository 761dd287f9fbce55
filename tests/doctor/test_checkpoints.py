"""What `validate` says of a checkpoint without images, and `doctor` with them."""

import os
import re
from pathlib import Path

import pytest
import torch

import igkd_hpo
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.errors import StudyFileError
from tests.assets.conftest import make_study

from .conftest import Patient


def document(key: str) -> dict[str, object]:
    section, name = key.split(".")
    sections = {"teacher": {"architecture": "resnet18"}, "student": {"architecture": "torchvision/resnet18"}}
    sections[section][name] = "net.pt"
    init = {"init": "pretrained"} if section == "student" else {}
    teacher = sections["teacher"] if section == "teacher" else {}
    study = make_study(
        teacher=teacher,
        student=sections["student"],
        hyperparameters={"architecture": "torchvision/resnet18", **init},
        pruner={"name": "none"},
    )
    return study.model_dump(mode="json")


KEYS = pytest.mark.parametrize("key", ["teacher.checkpoint", "teacher.weights", "student.weights"])


@KEYS
@pytest.mark.parametrize("kind", ["pipe", "folder", "text"])
def test_validate_refuses_what_cannot_be_weights(
    key: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGKD_HPO_DATA", str(tmp_path))
    path = tmp_path / "net.pt"
    {"pipe": os.mkfifo, "folder": os.mkdir, "text": lambda path: path.write_text("root:x:0:0")}[kind](path)
    with pytest.raises(StudyFileError, match=rf"{re.escape(key)} .*; "):
        igkd_hpo.validate(document(key))


@KEYS
def test_validate_warns_of_weights_that_may_be_elsewhere(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGKD_HPO_DATA", str(tmp_path))
    (tmp_path / "images").mkdir()
    (warning,) = (said for said in igkd_hpo.validate(document(key)).warnings if "is not there" in said)
    assert warning.startswith(key)
    torch.save({"a": torch.ones(1)}, tmp_path / "net.pt")
    assert not any("is not there" in said for said in igkd_hpo.validate(document(key)).warnings)


def test_the_doctor_names_the_choice_between_raw_and_averaged_weights(patient: Patient) -> None:
    states = {
        name: {"steep": torch.tensor(steep), "ballast": torch.zeros(100_000)}
        for name, steep in (("state_dict", 0.0), ("state_dict_ema", 4.0))
    }
    torch.save(states, patient.folder / "both.pt")
    found = patient.examine(teacher={"checkpoint": "both.pt"})
    assert "state_dict taken, and not state_dict_ema" in found["teacher: network"].found
    assert "checkpoint_key to state_dict_ema" in found["teacher: accuracy"].advice
    chosen = patient.examine(teacher={"checkpoint": "both.pt", "checkpoint_key": "state_dict_ema"})
    assert chosen.faults == set()


def test_the_doctor_makes_the_checks_of_prepare(patient: Patient) -> None:
    code = patient.folder / "quarters.py"
    code.write_text(code.read_text() + "\nclass Softmax(Corners):\n    def forward(self, x):\n"
                    "        return super().forward(x).mul(9).softmax(1)\n")  # fmt: skip
    found = patient.examine(teacher={"architecture": "quarters:Softmax"})
    assert found["teacher: logits"].verdict is CheckVerdict.FAULT
    assert found.faults == {"teacher: logits"}
