"""From study file to bundle with a student that learns something else than its weights, most of which become 0."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import igkd_hpo
from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.config.reading import parse_study
from igkd_hpo.distillation.architectures import Request
from igkd_hpo.distillation.architectures.mobilenet_v2 import build
from igkd_hpo.distillation.evaluation import predict
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network
from igkd_hpo.trial.student import deployed
from tests.cli.conftest import STUDY, prepared

__all__ = ["prepared"]
ONE_EPOCH = (
    STUDY.replace("controls: [student, kd_ig]", "controls: []")
    .replace("epochs: 4", "epochs: 1")
    .replace("n_trials: 8", "n_trials: 1")
    .replace("overlay_probability: {type: float, low: 0.0, high: 0.5}", "overlay_probability: 0.0")
    .replace(
        "width: 0.25\npruner",
        "width: 0.25\n  overparameterize: mpo\n  powerprop_alpha: 1.5\n  sparsity: 0.75\npruner",
    )
)


def test_a_bundle_holds_the_plain_student_that_was_validated(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared / "storage" / "assets", tmp_path / "storage" / "assets")
    monkeypatch.chdir(tmp_path)
    config, settings = parse_study(ONE_EPOCH, source="study.yaml"), Settings.resolve()
    study = igkd_hpo.launch(config, engine="in_process", progress=False)
    best, assets = study.best, open_assets(config, settings)
    kept = kept_network(
        config, assets, settings, folder=study.name, number=0, hyperparameters=best.hyperparameters, seed=best.seed
    )
    assert kept is not None
    trained, accuracy = kept
    assert accuracy == best.accuracy
    shutil.rmtree(settings.paths.checkpoints)  # so that it is trained again for the bundle
    bundle = study.export_bundle("bundle")
    assert bundle.validation_accuracy == best.accuracy

    plain = build(Request(name="mobilenet_v2", num_classes=10, image_size=(8, 8)), width=0.25, layers_removed=17)
    shipped = load_file(tmp_path / "bundle" / "model.safetensors")
    merged = deployed(trained.body, "mobilenet_v2").state_dict()
    assert shipped.keys() == merged.keys() == plain.state_dict().keys()
    assert all(torch.equal(shipped[name], tensor) for name, tensor in merged.items())
    images = assets.dataset.validation_images[:64]
    answers = predict(trained, images, device=torch.device("cpu"))
    found = torch.from_numpy(OnnxStudent(tmp_path / "bundle" / "model.onnx").logits(images.numpy()))
    assert (found - answers).abs().max() < 1e-5 * answers.abs().max()

    parameters = sum(tensor.numel() for tensor in plain.parameters())
    weights = [shipped[name] for name, tensor in plain.named_parameters() if tensor.ndim > 1]
    zeros = sum(int((tensor == 0).sum()) for tensor in weights)
    assert zeros == round(0.75 * sum(tensor.numel() for tensor in weights))
    assert (best.cost["parameters"], best.cost["nonzero_parameters"]) == (parameters, parameters - zeros)
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert f"{parameters - zeros:,} of these parameters are not 0" in card
    assert f"{parameters - zeros:,} of them not 0" in study.summary()
