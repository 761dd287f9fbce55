"""What a study file says reaches the training, and the pictures show it."""

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.overlay import normalize_maps, overlay
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, KNOB_OF, Recipe
from igkd_hpo.trial.build import overlay_examples, recipe_of

CPU = torch.device("cpu")


@pytest.fixture
def assets() -> Assets:
    images = torch.randint(256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    data = TrainingData(
        images=images, labels=labels, maps=torch.rand(8, 8, 8), validation_images=images, validation_labels=labels
    )
    dataset = SimpleNamespace(mean=(0.5,) * 3, std=(0.2,) * 3, class_names=("a", "b"), num_classes=2)
    return cast(Assets, SimpleNamespace(dataset=dataset, training_data=lambda: data, teacher_parameters=1000))


def other_value(name: str) -> Any:
    known = HYPERPARAMETERS[name]
    if known.check is not None:
        return known.default
    if name == "init":  # the other two need what this study does not have
        return "teacher_prefix"
    if known.words:
        return next(word for word in known.words if word != known.default)
    middle = known.cast((known.low + known.high) / 3)
    return middle if middle != known.default else known.cast(known.high)


def test_every_setting_of_a_training_reaches_the_recipe_by_its_name() -> None:
    """Fields of a recipe, and hyperparameters, of which a new one is forgotten as easily as an old one."""
    hyperparameters = {name: other_value(name) for name in HYPERPARAMETERS}
    training = {"epochs": 7, "optimizer": "adamw", "schedule": "cosine"}
    augmentation = {"crop_padding": 0, "horizontal_flip": False, "views": 3, "scale": (0.5, 0.9), "mixed": None}
    machine = {"precision": "bfloat16", "compile": "auto", "memory_format": "contiguous"}
    study = Study.model_validate(
        {
            "name": "one",
            "dataset": {"name": "digits"},
            "teacher": {"width": hyperparameters["width"]},
            "hyperparameters": hyperparameters,
            "training": training,
            "augmentation": augmentation,
        },
        strict=False,
    )
    execution = Execution(device="cpu", threads=1, torch="2", **machine)
    recipe = recipe_of(study, study.hyperparameters.fixed(), execution, seed=3)
    del machine["memory_format"]
    expected = hyperparameters | training | augmentation | machine | {"seed": 3, "channels_last": False}
    assert {field.name for field in fields(Recipe)} - {"settings"} <= expected.keys()
    for name, value in expected.items():
        if name not in KNOB_OF:
            assert recipe.value(name) == value, name


@pytest.mark.parametrize("mode", ["blend", "background"])
def test_examples_are_overlaid_in_the_mode_asked_for(mode: str, assets: Assets) -> None:
    examples = overlay_examples(assets, strength=0.5, mode=mode, count=3)
    assert examples is not None
    assert examples.names == ("a", "b", "a")
    data = assets.training_data()
    assert data.maps is not None
    chosen = [0, 4, 1]
    maps = normalize_maps(data.maps[chosen], torch.ones(3))
    expected = overlay(data.images[chosen].float() / 255, maps, torch.full((3,), 0.5), mode)
    assert torch.equal(torch.from_numpy(examples.overlays), expected)
