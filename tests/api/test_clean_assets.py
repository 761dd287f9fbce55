"""`clean` keeps all that a study's trials and its next launch read, of every kind of asset there is."""

import os
from typing import get_args

import optuna
import torch

from igkd_hpo.api.clean import clean
from igkd_hpo.assets.layout import Layout, keep_layout
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.shown import prepare_images
from igkd_hpo.assets.store import AssetStore, Kind
from igkd_hpo.assets.study_assets import prepare_assets
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import create_or_open
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.trial.step import Step, keep_step
from tests.assets.conftest import make_study
from tests.fixtures.networks import network_settings
from tests.fixtures.studies import *  # noqa: F403

CPU = torch.device("cpu")
settings = network_settings
FROM_WEIGHTS = {"architecture": "nets:halving", "weights": "begin.pt", "epochs": 12, "learning_rate": 0.5}


def one_of_every_kind(settings: Settings) -> list[Study]:
    """Two studies that have assets of every kind between them: several teachers know no table of attention."""
    for name, of in (("begin.pt", "nets:halving"), ("student.pt", "nets:plain")):
        request = Request(name=of, num_classes=5, image_size=(8, 8), allow_import=settings.allow_import)
        torch.save(find_architecture(of).build(request).state_dict(), settings.data_path(name))
    for number in (1.0, 2.0):
        torch.save({"scale": torch.tensor(number)}, settings.data_path(f"teacher-{number:g}.pt"))
    one = make_study(
        name="one",
        dataset={"image_size": 8},
        teacher={**FROM_WEIGHTS, "normalize": "dataset", "input_size": 12, "logits": "cached"},
        student={"weights": "student.pt"},
        augmentation={"horizontal_flip": False, "crop_padding": 0},
        attribution={"n_steps": 2},
        hyperparameters={
            "architecture": "nets:plain",
            "init": {"type": "categorical", "choices": ["random", "pretrained"]},
            "attention_weight": 5.0,
        },
    )
    given = {"architecture": "nets:good", "checkpoint": ["teacher-1.pt", "teacher-2.pt"], "input_size": 16}
    return [one, make_study(name="several", dataset={"image_size": 8}, teacher=given, attribution={"n_steps": 2})]


def removed(paths: Paths) -> set[str]:
    """What `clean` removes once nothing was touched for long."""
    for path in [paths.root, *paths.root.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return {leftover.path.name for leftover in clean(remove=True).old}


def test_no_asset_that_a_study_needs_goes_whatever_its_kind_and_each_goes_with_its_study(
    settings: Settings, storage: SharedStorage, paths: Paths
) -> None:
    one, several = one_of_every_kind(settings)
    dataset = prepare_images(one, settings, AssetStore(paths.assets), SilentProgress())
    keep_layout(Layout(memory_format="contiguous"), one, dataset.shown, settings, CPU)
    keep_step(Step(memory_format="channels_last", seconds=0.1), one, "nets:plain", dataset, settings, CPU)
    for study in (one, several):
        pins = prepare_assets(study, settings, device="cpu", progress=SilentProgress()).pins
        assert pins.shown_sha256 is not None
        create_or_open(storage, study, n_trials=None, pins=pins)
        assert removed(paths) == set(), "nor beside fewer studies"
    made = [asset.folder.name for asset in AssetStore(paths.assets).finished()]
    assert {name.rpartition("-")[0] for name in made} == set(get_args(Kind))
    for study in (one, several):
        optuna.delete_study(study_name=study.name, storage=storage)
    assert removed(paths) == set(made)
