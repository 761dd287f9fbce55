"""What each of the related papers gives to a student, from study file to bundle."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import igkd_hpo
from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.bundle import contents
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.distillation.architectures import Request
from igkd_hpo.distillation.architectures.mobilenet_v2 import build
from igkd_hpo.distillation.evaluation import predict
from igkd_hpo.distillation.models import Network
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network
from tests.cli.conftest import STUDY, prepared

__all__ = ["prepared"]
PLAIN = {
    "temperature": 4.0, "alpha": 0.5, "overlay_probability": 0.0, "overlay_strength": 0.5, "learning_rate": 0.05,
    "batch_size": 128, "layers_removed": 17, "width": 0.25,
}  # fmt: skip
GIVEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "RTK": ({"rtk_weight": 1.0, "rtk_keys": 1}, {}),
    "OPDF": ({"overparameterize": "mpo"}, {}),
    "KD-DAGFM": ({"objective": "logit_mse"}, {"labels_alone": 0.5, "init": "teacher_prefix", "frozen_blocks": 1}),
    "FOSTER": ({"objective": "foster", "foster_beta": 0.999}, {}),
    "Powerpropagation": ({"powerprop_alpha": 2.0}, {"sparsity": 0.5}),
    "OSAKD": ({"osakd_weight": 1.0, "osakd_neighbors": 5}, {"alpha": 0.0}),
    "SKT": ({"skt_intra_weight": 1.0, "skt_inter_weight": 1.0}, {}),
}
"""What each asks for: that whose effect is looked at, and what it is looked at beside."""


def launch(name: str, given: dict[str, Any]) -> igkd_hpo.Study:
    """Run one training of two epochs here."""
    shape = {"name": name, "controls": [], "n_trials": 1, "training": {"epochs": 2}, "hyperparameters": PLAIN | given}
    return igkd_hpo.launch(yaml.safe_load(STUDY) | shape, engine="in_process", device="cpu", progress=False)


def trained(study: igkd_hpo.Study) -> Network:
    """Return the network that the study's only trial trained."""
    config, settings, best = study.study_file, Settings.resolve(), study.best
    kept = kept_network(
        config, open_assets(config, settings), settings, folder=study.name, number=0,
        hyperparameters=best.hyperparameters, seed=best.seed,
    )  # fmt: skip
    assert kept is not None
    return kept[0]


@pytest.fixture(scope="module")
def folder(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the tiny study's assets, for all papers."""
    made = tmp_path_factory.mktemp("papers")
    (made / "storage").mkdir()
    (made / "storage" / "assets").symlink_to(prepared / "storage" / "assets")
    return made


@pytest.mark.parametrize("paper", GIVEN)
def test_from_study_file_to_bundle(paper: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    given, beside = GIVEN[paper]
    study = launch(paper, given | beside)
    bundle = study.export_bundle(paper)
    assert bundle.validation_accuracy == study.best.accuracy
    written = yaml.safe_load((folder / paper / contents.STUDY).read_text())["hyperparameters"]
    assert written.items() >= (given | beside).items()

    student, otherwise = trained(study), trained(launch(f"beside{'-'.join(beside)}", beside))
    images = open_assets(study.study_file, Settings.resolve()).dataset.validation_images[:64]
    answers, others = (predict(network, images, device=torch.device("cpu")) for network in (student, otherwise))
    # It was trained so; ignored, it would be 0. The least is 9e-4, of OPDF, and differs from processor to processor.
    assert (answers - others).abs().max() > 1e-4 * answers.abs().max()
    shipped = torch.from_numpy(OnnxStudent(folder / paper / contents.ONNX).logits(images.numpy()))
    assert (shipped - answers).abs().max() < 1e-5 * answers.abs().max()
    plain = build(Request(name="mobilenet_v2", num_classes=10, image_size=(8, 8)), width=0.25, layers_removed=17)
    assert load_file(folder / paper / contents.WEIGHTS).keys() == plain.state_dict().keys()
