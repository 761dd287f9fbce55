"""A teacher sees the files at its own size, and what it says belongs to the image and the view that the student has."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from igkd_hpo.assets.shown import open_images, prepare_images
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teacher import teacher_asset
from igkd_hpo.distillation.models import to_pixels
from igkd_hpo.distillation.teaching import CachedLogits
from igkd_hpo.distillation.views import make_views
from igkd_hpo.errors import AssetError
from igkd_hpo.trial.build import make_trial

from .conftest import make_study, write_png

CPU = torch.device("cpu")
FINE_TEACHER = """
import torch
from torch import nn

class Stripes(nn.Module):
    '''Class 0 for lying stripes of one pixel, class 1 for upright ones; shrunk three times both are grey.'''

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        across = (x[..., 1:] - x[..., :-1]).square().mean(dim=(1, 2, 3))
        down = (x[..., 1:, :] - x[..., :-1, :]).square().mean(dim=(1, 2, 3))
        return torch.stack([self.scale * down, self.scale * across], dim=1)

def fine():
    return Stripes()
"""
BOXES = {"crop_padding": 0, "views": 3, "scale": (0.5, 0.9)}
MIXED = {"crop_padding": 0, "views": 4, "scale": (0.5, 0.9), "mixed": 0.7}
SHIFTED = {"crop_padding": 1, "horizontal_flip": True}


@pytest.fixture(autouse=True)
def striped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """80 images of 24x24 in two classes, whose stripes a student of 8x8 cannot see, and a teacher that can."""
    stripes = (np.arange(24) % 2 * 2 - 1)[None, :].repeat(24, axis=0)
    for label, name in enumerate(("upright", "lying")):
        for number in range(40):
            blocks = 50 + 150 * np.random.default_rng(1000 * label + number).random((6, 6, 3))
            shades = blocks.repeat(4, axis=0).repeat(4, axis=1)
            pixels = shades + 30 * (stripes if label == 0 else stripes.T)[..., None]
            write_png(tmp_path / "images" / "train" / name / f"{number:02d}.png", pixels.clip(0, 255).astype(np.uint8))
    (tmp_path / "own_teacher.py").write_text(FINE_TEACHER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_teacher", None)


def fine_study(**sections):
    return make_study(
        **{
            "dataset": {"image_size": 8},
            "teacher": {"architecture": "own_teacher:fine", "normalize": "none", "input_size": 24},
            **sections,
        }
    )


def test_a_teacher_that_needs_the_files_own_pixels_gets_them(settings, progress):
    summary = prepare_assets(fine_study(), settings, device="cpu", progress=progress)
    assert summary.teacher_accuracy == 1
    assert summary.image_size == (8, 8)
    maps = open_assets(fine_study(), settings).maps.array("maps")
    assert maps.shape[1:] == (8, 8)
    assert maps.any()


def test_the_teacher_is_found_from_the_students_images(settings, progress, store):
    made = prepare_assets(fine_study(), settings, device="cpu", progress=progress)
    found = teacher_asset(fine_study(), open_assets(fine_study(), settings).dataset, store)
    assert found.facts["validation_accuracy"] == made.teacher_accuracy


@pytest.mark.parametrize("augmentation", [BOXES, SHIFTED, MIXED])
def test_the_table_and_the_teacher_in_each_step_agree_bit_for_bit(settings, progress, augmentation):
    study = fine_study(
        augmentation=augmentation,
        training={"epochs": 1},
        teacher={"architecture": "own_teacher:fine", "normalize": "none", "input_size": 24, "logits": "cached"},
        hyperparameters={"overlay_probability": 0.0},
        controls=["student", "kd"],
    )
    prepare_assets(study, settings, device="cpu", progress=progress)
    cached = open_assets(study, settings)
    assert isinstance(cached.teaching(CPU), CachedLogits)
    values = study.hyperparameters.middle() | {"width": 0.1, "layers_removed": 14}
    losses = []
    for mixed in (False, True):  # as if no table served
        trial = make_trial(study, values, replace(cached, logits=None) if mixed else cached, seed=1, device=CPU)
        assert (trial.training.data.shown_images is None) != mixed
        losses.append([metrics.train_loss for metrics in trial.training.epochs()])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("augmentation", [BOXES, SHIFTED])
def test_what_the_teacher_sees_is_the_students_view(settings, progress, store, augmentation):
    study = fine_study(augmentation=augmentation)
    dataset = prepare_images(study, settings, store, progress)
    views = make_views(study.augmentation, dataset.digests)
    rows = torch.arange(len(dataset.train_images)).repeat_interleave(views.count)
    numbers = torch.arange(views.count).repeat(len(dataset.train_images))
    students = to_pixels(views.cut(dataset.train_images[rows], rows, numbers))

    def difference(rows, numbers):
        teachers = to_pixels(views.cut_from(dataset.shown.train_images[rows], rows, numbers, dataset.image_size))
        # Over pairs of the student's pixels, which hold as many light stripes as dark ones.
        difference = F.avg_pool2d(teachers, 6) - F.avg_pool2d(students, 2)
        return difference[..., 1:-1, 1:-1].abs().mean().item()  # the edge is padded or repeated by each in its way

    right = difference(rows, numbers)
    assert right < 0.05
    for wrong in (difference(rows.roll(1), numbers), difference(rows, (numbers + 1) % views.count)):
        assert wrong > 1.5 * right


def test_rows_of_other_images_are_refused(settings, progress, store, monkeypatch):
    study = fine_study()
    prepare_images(study, settings, store, progress)
    from igkd_hpo.assets import shown

    opened = shown.open_dataset

    def permuted(config, store):
        dataset = opened(config, store)
        return dataset if config.image_size == 8 else replace(dataset, train_images=dataset.train_images.flip(0))

    monkeypatch.setattr(shown, "open_dataset", permuted)
    with pytest.raises(AssetError, match="not those of"):
        open_images(study, store)


@pytest.mark.parametrize(
    "sections", [{"dataset": {"image_size": None}}, {"teacher": {"architecture": "own_teacher:fine"}}]
)
def test_a_teacher_without_a_size_of_its_own_sees_the_students_images(settings, progress, store, sections):
    dataset = prepare_images(fine_study(**sections), settings, store, progress)
    assert dataset.shown is dataset
    assert dataset.shown_sha256 is None
