"""A study of 570 images to 30, judged by balanced accuracy, from `launch` to `confirm` and `export`."""

from pathlib import Path

import numpy as np
import pytest

from igkd_hpo.config.reading import read_study
from tests.assets.conftest import write_png
from tests.cli.conftest import Workspace, json_of

CRACK, FINE = (90, 60, 60), (60, 90, 60)
STUDY = """\
version: 1
name: cracks
dataset: {name: folder, root: images, image_size: 8, validation_fraction: 0.25}
teacher: {width: 0.25, epochs: 8}
augmentation: {crop_padding: 1}
training: {epochs: 3}
metric: balanced_accuracy
hyperparameters:
  temperature: 4.0
  alpha: 0.5
  overlay_probability: 0.0
  overlay_strength: 0.0
  learning_rate: {type: float, low: 0.05, high: 0.2}
  class_weights: {type: categorical, choices: [none, balanced]}
  batch_size: 64
  layers_removed: 17
  width: 0.25
pruner: {name: none}
n_trials: 2
controls: []
"""


@pytest.fixture
def images(workspace: Workspace) -> Path:
    draw = np.random.default_rng(0)
    for name, count, colour in (("crack", 30, CRACK), ("fine", 570, FINE)):
        for number in range(count):
            shown = FINE if number < 9 and name == "crack" else colour  # the rare class is never all right
            pixels = draw.integers(0, 120, (8, 8, 3)) + np.array(shown)
            write_png(workspace.folder / "images" / "train" / name / f"{number:03d}.png", pixels.astype(np.uint8))
    (workspace.folder / "storage" / "assets").unlink()
    (workspace.folder / "cracks.yaml").write_text(STUDY)
    return workspace.folder / "images"


def test_from_launch_to_export(workspace: Workspace, images: Path) -> None:
    launched = workspace.here("launch", "cracks.yaml")
    assert "% balanced accuracy" in launched.stderr
    assert "% validation balanced accuracy after 3 epochs" in launched.stdout
    found = json_of(workspace.here("best", "cracks", "--json"))
    assert found["metric"] == "balanced_accuracy"
    recalls = [one["recall"] for one in found["classes"]["worst"]]
    assert {one["name"]: one["images"] for one in found["classes"]["worst"]} == {"crack": 6, "fine": 114}
    assert found["validation_accuracy"] == pytest.approx(sum(recalls) / 2, abs=1e-6)
    assert found["teacher_accuracy"] > 0.5
    assert min(recalls) < 1

    confirmed = json_of(workspace.here("confirm", "cracks", "--top", "1", "--seeds", "2", "--json"))
    assert confirmed["metric"] == "balanced_accuracy"
    classes = confirmed["classes"]
    assert (classes["runs"], {one["name"]: one["images"] for one in classes["worst"]}) == (
        2,
        {"crack": 12, "fine": 228},
    )
    arm = next(arm for arm in confirmed["arms"] if arm["number"] == confirmed["chosen"])
    assert arm["test"]["mean"]["value"] == pytest.approx(sum(one["recall"] for one in classes["worst"]) / 2)

    workspace.here("export", "cracks", "-o", "best.yaml")
    exported = read_study(workspace.folder / "best.yaml")
    assert exported.metric == "balanced_accuracy"
    assert exported.provenance is not None
    workspace.here("report", "cracks", "-o", "page.html")
    assert "on the test split, 2 seeds together" in (workspace.folder / "page.html").read_text()
