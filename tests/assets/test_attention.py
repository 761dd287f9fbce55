"""The table of the teacher's attention: made where it saves time, and what a teacher in each step says."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from igkd_hpo.assets.attention import wants_attention
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.config.study import Study
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_trial

from .conftest import RecordingProgress, make_study

CPU = torch.device("cpu")
STRIDING = """
import torch
from torch import nn

class Striding(nn.Module):
    '''Class 0 where the left half is brighter; maps of stride 2 and 4, of which only hooks hear.'''

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        self.norm(self.second(self.first(x).relu()))
        half = x.shape[3] // 2
        left, right = x[..., :half].mean(dim=(1, 2, 3)), x[..., half:].mean(dim=(1, 2, 3))
        return 4 * torch.stack([left - right, right - left], dim=1)
"""
ATTENTION = {"attention_weight": 5.0, "attention_depths": "stages", "overlay_probability": 0.0, "overlay_strength": 0.0}
TRAINED = {**ATTENTION, "alpha": 0.5, "layers_removed": 14, "width": 0.1, "batch_size": 16}
BOXES = {"crop_padding": 0, "horizontal_flip": False, "views": 3, "scale": (0.5, 0.9)}
SHIFTED = {"crop_padding": 1, "horizontal_flip": True}
MIXED = {**BOXES, "views": 4, "mixed": 0.7}


@pytest.fixture(autouse=True)
def striding(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_teacher.py").write_text(STRIDING)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_teacher", None)


def attending(augmentation: dict[str, object], **sections: object) -> Study:
    teacher = {"architecture": "own_teacher:Striding", **sections.pop("teacher", {})}
    return make_study(
        teacher=teacher,
        augmentation=augmentation,
        hyperparameters={**TRAINED, **sections.pop("hyperparameters", {})},
        **sections,
    )


def test_features_are_those_of_the_teacher_as_it_was_trained(settings: Settings, progress: RecordingProgress) -> None:
    """Folded layers answer the same with other features where a tap stands before a normalisation."""
    study = attending(SHIFTED)
    prepare_assets(study, settings, device="cpu", progress=progress)
    assets = open_assets(study, settings)
    trial = make_trial(study, dict(study.hyperparameters.fixed()), assets, seed=3, device=CPU)
    assert trial.training.features is not None
    assert trial.training.features._network is assets.teachers.members[0].network
    assert assets.teachers.networks(CPU)[0] is not assets.teachers.members[0].network


@pytest.mark.parametrize(
    ("augmentation", "alignment"),
    [(SHIFTED, "aligned"), (BOXES, "reference_shuffled"), (MIXED, "aligned")],
    ids=["shifts", "boxes of stand-ins", "mixtures"],
)
def test_a_training_by_the_table_is_one_by_the_teacher_bit_for_bit(
    augmentation: dict[str, object], alignment: str, settings: Settings, progress: RecordingProgress
) -> None:
    study = attending(augmentation, hyperparameters={"alignment": alignment})
    prepare_assets(study, settings, device="cpu", progress=progress)
    assets = open_assets(study, settings)

    def weights(by_table: bool, *, moved: int = 0) -> tuple[torch.Tensor, int]:
        trial = make_trial(
            study,
            dict(study.hyperparameters.fixed()),
            assets if by_table else replace(assets, attention=None),
            seed=3,
            device=CPU,
        )
        training, runs = trial.training, []
        assert training.features is not None
        if moved:
            table = training.features._table
            assert table is not None
            table.table = table.table.roll(1, dims=moved - 1)
        training.features._network.body.first.register_forward_hook(lambda *_: runs.append(1))
        next(training.epochs())
        return torch.cat([part.flatten() for part in training.network.body.parameters()]), len(runs)

    by_table, by_teacher = weights(True), weights(False)
    assert by_table[1] == 0 < by_teacher[1]
    assert torch.equal(by_table[0], by_teacher[0])
    for axis in (1, 2):  # another image's, another view's
        assert not torch.equal(weights(True, moved=axis)[0], by_teacher[0])


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": {"logits": "online"}},
        {"hyperparameters": {"attention_weight": 0.0, "attention_depths": "middle"}},
        {"hyperparameters": {"hint_weight": 1.0}},
        {"hyperparameters": {"mixup": 0.4}},
        {"n_trials": 4, "training": {"epochs": 1}},
        {"teacher": {"architecture": "mobilenet_v2", "normalize": "dataset"}},
    ],
    ids=["online", "no attention", "other features", "always mixed", "few epochs", "block by block"],
)
def test_where_it_would_not_be_used_or_costs_more_none_is_made(
    change: dict[str, dict[str, object]], settings: Settings, progress: RecordingProgress
) -> None:
    dataset = open_or_prepare(attending(BOXES), settings, progress)
    assert wants_attention(attending(BOXES), dataset)
    assert not wants_attention(attending(BOXES, **change), dataset)


def open_or_prepare(study: Study, settings: Settings, progress: RecordingProgress):
    from igkd_hpo.assets.shown import prepare_images
    from igkd_hpo.assets.store import AssetStore

    return prepare_images(study, settings, AssetStore(settings.paths.assets), progress)
