"""What is new is one file: an objective, an architecture, a data source, a hyperparameter, in a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from igkd_hpo.distillation.recipe import as_written

OBJECTIVE = '''
"""Squared error of the probabilities."""

import os

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role

HYPERPARAMETERS = {
    "brier_power": Hyperparameter("brier alone: its exponent.", Role.LOGITS, low=1, high=4, default=2.0),
}


def brier(student_logits, teacher_logits, targets, *, temperature, brier_power):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(f"brier_power {brier_power}\\n")
    student, teacher = ((logits / temperature).softmax(dim=1) for logits in (student_logits, teacher_logits))
    return ((student - teacher).abs() ** brier_power).sum(dim=1).mean()
'''
ARCHITECTURE = '''
"""Patches of the image, and a linear layer."""

from igkd_hpo.distillation.architectures import Architecture, Knob
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role


def patches(request, *, patch_channels):
    from torch import nn

    body = nn.Conv2d(3, patch_channels, 4, stride=4), nn.BatchNorm2d(patch_channels), nn.ReLU()
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(patch_channels, request.num_classes))


CHANNELS = Hyperparameter("Of a patch.", Role.ARCHITECTURE, whole=True, low=1, high=64, default=4)
ARCHITECTURE = Architecture(called="patches", build=patches, knobs={"patch_channels": Knob(CHANNELS, "low")})
'''
SOURCE = '''
"""Noise, of which one colour is brighter: its number is the class."""

from igkd_hpo.sources import Found, Images, Published, Source


def find(root, image_size):
    return Found(own_test=False, read=read)


def read(place):
    import numpy as np

    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 120, (60, 3, 8, 8), dtype=np.uint8)
    images[np.arange(60), labels] += 100
    return Images(images=images, labels=labels, n_train=60, class_names=("red", "green", "blue"))


SOURCE = Source(
    help="noise",
    root="unused",
    about_root="colours are made",
    find=find,
    published=Published(images=60, side=8, classes=3),
)
'''
TERM = '''
"""Small logits."""

import os

from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role

HYPERPARAMETERS = {
    "logit_size_weight": Hyperparameter("Of the size of the logits.", Role.TRAINING, high=9, default=0.0, off=0.0),
}


def term(step):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(f"logit_size_weight {step.recipe.number('logit_size_weight')}\\n")
    return step.student_logits.square().mean()
'''
FILES = {
    "distillation/objectives/brier.py": OBJECTIVE,
    "distillation/architectures/patches.py": ARCHITECTURE,
    "sources/colours.py": SOURCE,
    "distillation/terms/logit_size.py": TERM,
}
STUDY: dict[str, Any] = {
    "name": "extended",
    "dataset": {"name": "colours", "validation_fraction": 0.2},
    "teacher": {"width": 0.25, "epochs": 8},
    "student": {"architecture": "patches"},
    "training": {"epochs": 1},
    "hyperparameters": {
        "temperature": 4.0,
        "alpha": 0.5,
        "overlay_probability": 0.0,
        "overlay_strength": 0.0,
        "learning_rate": 0.05,
        "batch_size": 16,
        "objective": "brier",
        "brier_power": {"type": "float", "low": 1.0, "high": 4.0},
        "patch_channels": {"type": "int", "low": 2, "high": 9},
        "logit_size_weight": {"type": "float", "low": 0.5, "high": 2.0},
    },
    "limits": {"parameters": 470},
    "controls": ["kd"],
    "n_trials": 4,
    "pruner": {"name": "none"},
}
SCRIPT = f"""
import json, os
import igkd_hpo

study = igkd_hpo.launch({STUDY!r}, engine="in_process", progress=False)
study.export("best.yaml")
trained = igkd_hpo.train("best.yaml", output="trained", progress=False)
told = dict(
    package=igkd_hpo.__file__,
    trials=[dict(state=trial.state, control=trial.control, values=trial.hyperparameters) for trial in study.trials],
    best=dict(values=study.best.hyperparameters, **study.best.cost),
    exported=igkd_hpo.validate("best.yaml").study_file.model_dump(mode="json"),
)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a study says that uses all four, added to a copy of the package, and what the four saw."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("run")
    for name in ("igkd_hpo", "studies"):  # with what was compiled already
        shutil.copytree(repository / name, copy / name)
    assert len(FILES) == 4, "an objective, a term with its hyperparameter, an architecture, a source: a file each"
    for name, text in FILES.items():
        assert not (copy / "igkd_hpo" / name).exists(), "what is new is written, and nothing else is touched"
        (copy / "igkd_hpo" / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(copy), "SEEN": str(folder / "seen")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["package"]).is_relative_to(copy)
    return found | {"seen": set((folder / "seen").read_text(encoding="utf-8").splitlines())}


def completed(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial["values"] for trial in told["trials"] if trial["state"] == "COMPLETE"]


@pytest.mark.parametrize(
    ("name", "unless"), [("brier_power", "kd"), ("logit_size_weight", None)], ids=["objective", "term"]
)
def test_an_objective_and_a_term_are_called_with_what_their_trials_record(
    told: dict[str, Any], name: str, unless: str | None
) -> None:
    wanted = {f"{name} {trial[name]}" for trial in completed(told) if trial["objective"] != unless}
    assert len(wanted) >= 2
    assert {line for line in told["seen"] if line.startswith(name)} == wanted


def test_a_student_is_as_large_as_its_architecture_says(told: dict[str, Any]) -> None:
    channels = told["best"]["values"]["patch_channels"]
    assert told["best"]["parameters"] == 49 * channels + 2 * channels + 3 * (channels + 1)


def test_a_limit_knows_the_smallest_student(told: dict[str, Any]) -> None:
    assert all(trial["patch_channels"] <= 8 for trial in completed(told)), "nine channels are 489 parameters"


def test_plain_training_leaves_the_new_objective_out(told: dict[str, Any]) -> None:
    (control,) = [trial["values"] for trial in told["trials"] if trial["control"] == "kd"]
    assert control["objective"] == "kd"
    assert control["patch_channels"] == 6, "the middle of its range"


def test_the_exported_file_holds_all_of_it(told: dict[str, Any]) -> None:
    exported = told["exported"]
    assert exported["dataset"]["name"] == "colours"
    assert exported["student"]["architecture"] == "patches"
    assert exported["hyperparameters"] == as_written(told["best"]["values"])
    assert list(exported["hyperparameters"])[-3:] == ["brier_power", "logit_size_weight", "patch_channels"]
