"""What a study file says reaches the training, and the pictures show it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.overlay import normalize_maps, overlay
from igkd_hpo.trial.build import make_trial, overlay_examples

CPU = torch.device("cpu")
OTHERS: dict[str, Any] = {
    "overlay_mode": "multiply", "alignment": "permuted_maps", "ema_decay": 0.9, "label_smoothing": 0.1, "cutout": 2,
    "flip": "alternating", "decay": "weights", "overlay_strength": 0.7, "weight_decay": 0.001, "batch_size": 4,
}  # fmt: skip


@pytest.fixture
def assets() -> Assets:
    images = torch.randint(256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    data = TrainingData(
        images=images, labels=labels, maps=torch.rand(8, 8, 8), validation_images=images, validation_labels=labels
    )
    dataset = SimpleNamespace(mean=(0.5,) * 3, std=(0.2,) * 3, class_names=("a", "b"), num_classes=2)
    return cast(Assets, SimpleNamespace(dataset=dataset, training_data=lambda _: data, teacher_parameters=1000))


def test_every_hyperparameter_of_a_recipe_reaches_it(assets: Assets) -> None:
    needed = {"temperature": 2.0, "alpha": 0.0, "overlay_probability": 0.5, "learning_rate": 0.1, "width": 0.1}
    study = Study.model_validate(
        {"name": "one", "dataset": {"name": "digits"}, "hyperparameters": needed | OTHERS}, strict=False
    )
    values = study.hyperparameters.fixed()
    trial = make_trial(study, values, assets, seed=3, device=CPU)
    for name, value in OTHERS.items():
        assert getattr(trial.training.recipe, name) == value, name


@pytest.mark.parametrize("mode", ["blend", "background"])
def test_examples_are_overlaid_in_the_mode_asked_for(mode: str, assets: Assets) -> None:
    examples = overlay_examples(assets, strength=0.5, mode=mode, count=3)
    assert examples is not None
    assert examples.names == ("a", "b", "a")
    data = assets.training_data(CPU)
    assert data.maps is not None
    chosen = [0, 4, 1]
    maps = normalize_maps(data.maps[chosen], torch.ones(3))
    expected = overlay(data.images[chosen].float() / 255, maps, torch.full((3,), 0.5), mode)
    assert torch.equal(torch.from_numpy(examples.overlays), expected)
