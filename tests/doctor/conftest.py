"""A small study without a fault, and one call that says what the doctor finds in it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, CheckVerdict
from igkd_hpo.doctor.doctor import examine
from igkd_hpo.settings import Paths, Settings
from tests.assets.conftest import make_study, write_png

CLASSES = ("east", "north", "south", "west")
OWN_TEACHER = """
import torch
from torch import nn
from torch.nn import functional as F

class Corners(nn.Module):
    '''Tells which quarter is the brightest; smooth, so that IG adds up, and larger than its students.'''

    def __init__(self, steep=4.0):
        super().__init__()
        self.steep = nn.Parameter(torch.tensor(steep))
        self.ballast = nn.Parameter(torch.zeros(100_000))

    def forward(self, x):
        h, w = x.shape[2] // 2, x.shape[3] // 2
        quarters = x[..., :h, :w], x[..., :h, w:], x[..., h:, :w], x[..., h:, w:]
        means = torch.stack([quarter.mean(dim=(1, 2, 3)) for quarter in quarters], dim=1)
        return torch.tanh(self.steep * (means - means.mean(dim=1, keepdim=True)))

def good():
    return Corners()

def hopeless():
    return Corners(0.0)

def steep():
    return Corners(2e5)

def nan():
    return Corners(float("nan"))

class Swapped(Corners):
    def forward(self, x):
        return super().forward(x)[:, [1, 0, 2, 3]]

class Absolute(Corners):
    '''Class 1 is told by its brightness as such, so the normalisation matters.'''

    def forward(self, x):
        h, w = x.shape[2] // 2, x.shape[3] // 2
        north = 4 * (x[..., :h, w:].mean(dim=(1, 2, 3)) - 0.44)
        return torch.cat([super().forward(x)[:, :1], north[:, None], super().forward(x)[:, 2:]], dim=1)

class BatchStatistics(Corners):
    def __init__(self):
        super().__init__(0.3)
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        return super().forward(self.norm(x))

class Dropout(Corners):
    def forward(self, x):
        return super().forward(F.dropout(x, 0.3, training=True))

class NoGradient(Corners):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)
"""


def quarter_image(label: int, index: int) -> np.ndarray:
    """Pixels (8, 8, 3) that say which image it is; its class is the quarter that is bright."""
    pixels = np.full((8, 8, 3), 40 + index % 7, dtype=np.uint8)
    top, left = 4 * (label // 2), 4 * (label % 2)
    pixels[top : top + 4, left : left + 4] = 180 + index % 5
    pixels[0, 0] = (index % 256, index // 256, label)
    return pixels


@dataclass
class Patient:
    """What the doctor looks at; a test plants a fault in it."""

    folder: Path
    settings: Settings

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def study(self, **sections: Any) -> Study:
        healthy: dict[str, Any] = {
            "dataset": {"validation_fraction": 0.4, "test_fraction": 0.2},
            "teacher": {"architecture": "quarters:good"},
            "hyperparameters": {"width": 0.1, "layers_removed": 9, "batch_size": 16},
            "pruner": {"name": "none"},
        }
        for name, value in sections.items():
            healthy[name] = {**healthy.get(name, {}), **value} if isinstance(value, dict) else value
        return make_study(**healthy)

    def examine(self, *, workers: int = 1, device: str = "cpu", storage: str | None = None, **sections: Any) -> "Found":
        settings = replace(self.settings, storage_url=storage) if storage else self.settings
        study = self.study(**sections)
        return Found(examine(study, settings, workers=workers, device=device, progress=SilentProgress()))


@dataclass
class Found:
    checks: list[Check]

    def of(self, verdict: CheckVerdict) -> set[str]:
        return {f"{check.group}: {check.name}" for check in self.checks if check.verdict is verdict}

    @property
    def faults(self) -> set[str]:
        return self.of(CheckVerdict.FAULT)

    @property
    def warnings(self) -> set[str]:
        return self.of(CheckVerdict.WARNING)

    def __getitem__(self, name: str) -> Check:
        (check,) = (check for check in self.checks if f"{check.group}: {check.name}" == name)
        return check


@pytest.fixture(scope="session")
def all_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder dataset without a test split: four classes, 80 images of 8x8 each."""
    root = tmp_path_factory.mktemp("all") / "images"
    for label, name in enumerate(CLASSES):
        for number in range(80):
            write_png(root / "train" / name / f"{number:03d}.png", quarter_image(label, 80 * label + number))
    return root


@pytest.fixture
def patient(tmp_path: Path, all_images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patient]:
    import shutil

    shutil.copytree(all_images, tmp_path / "images")
    (tmp_path / "quarters.py").write_text(OWN_TEACHER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield Patient(
        folder=tmp_path,
        settings=Settings(
            paths=Paths(root=tmp_path / "storage"),
            storage_url=f"sqlite:///{tmp_path / 'storage' / 'igkd_hpo.db'}",
            data_root=tmp_path,
            allow_import=frozenset({"quarters"}),
        ),
    )
    sys.modules.pop("quarters", None)
