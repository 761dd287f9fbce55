"""Small data and teachers for the tests of assets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.settings import Paths, Settings

OWN_TEACHER = """
import torch
from torch import nn

class Comparison(nn.Module):
    '''Class 0 where the left half is brighter, class 1 where the right half is; smooth, so that IG adds up.'''

    def __init__(self, sign=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(sign))

    def forward(self, x):
        half = x.shape[3] // 2
        left, right = x[..., :half].mean(dim=(1, 2, 3)), x[..., half:].mean(dim=(1, 2, 3))
        difference = 4 * self.scale * (left - right)
        return torch.stack([torch.tanh(difference), 2 * torch.tanh(-difference)], dim=1)

def good(num_classes):
    return Comparison()

def mirrored():
    return Comparison(-1.0)

def hopeless():
    return Comparison(0.0)

def wrong_type(num_classes):
    return "a network"

def broken():
    raise RuntimeError("no such luck")

def three_classes():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
"""


class RecordingProgress:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[int, int]] = {}  # description: (units done, total)
        self.notes: list[str] = []
        self.warnings: list[str] = []

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        self.tasks[description] = (0, total)

        def advance(count: int) -> None:
            self.tasks[description] = (self.tasks[description][0] + count, total)

        yield advance

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def progress() -> RecordingProgress:
    return RecordingProgress()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        paths=Paths(root=tmp_path / "storage"),
        storage_url="sqlite:///unused.db",
        data_root=tmp_path,
        allow_import=frozenset({"own_teacher"}),
    )


@pytest.fixture
def store(settings: Settings) -> AssetStore:
    return AssetStore(settings.paths.assets)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """A PNG of uint8 pixels (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def coded_image(label: int, index: int, size: int = 8) -> np.ndarray:
    """Pixels (H, W, 3) that say which image it is: its index in the corner, its class by the brighter half."""
    pixels = np.full((size, size, 3), 40 + index % 7, dtype=np.uint8)
    half = slice(0, size // 2) if label == 0 else slice(size // 2, size)
    pixels[:, half] = 180 + index % 5
    pixels[0, 0] = (index % 256, index // 256, label)
    return pixels


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder dataset without a test split: classes `left` and `right`, 40 images of 8x8 each."""
    root = tmp_path / "images"
    for label, name in enumerate(("left", "right")):
        for number in range(40):
            write_png(root / "train" / name / f"{number:03d}.png", coded_image(label, 40 * label + number))
    return root


@pytest.fixture
def own_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `own_teacher` in the current directory, as people have one."""
    import sys

    (tmp_path / "own_teacher.py").write_text(OWN_TEACHER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_teacher", None)


def make_study(**sections: Any) -> Study:
    """A small study on the folder `images`; a section given here replaces single keys of its section."""
    document: dict[str, Any] = {
        "name": "small",
        "dataset": {"name": "folder", "root": "images", "validation_fraction": 0.25, "test_fraction": 0.25},
        "teacher": {"architecture": "own_teacher:good", "normalize": "none"},
        "attribution": {"n_steps": 32},
        "augmentation": {"crop_padding": 1, "horizontal_flip": True},
        "training": {"epochs": 10},
        "hyperparameters": {
            "temperature": 2.0,
            "alpha": {"type": "float", "low": 0.0, "high": 1.0},
            "overlay_probability": {"type": "float", "low": 0.0, "high": 0.5},
            "overlay_strength": 0.5,
            "learning_rate": 0.1,
        },
        "n_trials": 10,
    }
    for name, value in sections.items():
        document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
    import json

    return Study.model_validate_json(json.dumps(document))
