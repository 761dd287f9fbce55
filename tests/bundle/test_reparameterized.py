"""From study file to bundle with students that learn something else than their weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import igkd_hpo
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.config.reading import parse_study
from igkd_hpo.distillation.architectures import Request
from igkd_hpo.distillation.architectures.mobilenet_v2 import build
from tests.cli.conftest import STUDY, fork_server, prepared

__all__ = ["fork_server", "prepared"]
ONE_EPOCH = (
    STUDY.replace("controls: [student, kd_ig]", "controls: []")
    .replace("epochs: 4", "epochs: 1")
    .replace("n_trials: 8", "n_trials: 1")
    .replace("layers_removed: 17", "layers_removed: 16")
    .replace("overlay_probability: {type: float, low: 0.0, high: 0.5}", "overlay_probability: 0.0")
)


@pytest.mark.parametrize(
    ("settings", "sparsity"),
    [("overparameterize: mpo", 0.0), ("overparameterize: branches\n  powerprop_alpha: 1.5\n  sparsity: 0.75", 0.75)],
    ids=["mpo", "pruned"],
)
def test_a_bundle_holds_the_plain_student_that_was_validated(
    settings: str, sparsity: float, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared / "storage" / "assets", tmp_path / "storage" / "assets")
    monkeypatch.chdir(tmp_path)
    text = ONE_EPOCH.replace("width: 0.25\npruner", f"width: 0.25\n  {settings}\npruner")
    study = igkd_hpo.launch(parse_study(text, source="study.yaml"), engine="in_process", progress=False)
    best = study.best
    if sparsity:  # trained again for the bundle, since its checkpoint is gone
        shutil.rmtree(tmp_path / "storage" / "checkpoints")
    bundle = study.export_bundle("bundle")
    assert bundle.validation_accuracy == best.accuracy
    shipped = load_file(tmp_path / "bundle" / "model.safetensors")
    plain = build(Request(name="mobilenet_v2", num_classes=10, image_size=(8, 8)), width=0.25, layers_removed=16)
    assert {name: tensor.shape for name, tensor in shipped.items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    parameters = sum(tensor.numel() for tensor in plain.parameters())
    assert best.cost["parameters"] == parameters
    weights = [shipped[name] for name, tensor in plain.named_parameters() if tensor.ndim > 1]
    zeros = sum(int((tensor == 0).sum()) for tensor in weights)
    assert zeros == round(sparsity * sum(tensor.numel() for tensor in weights))
    images = np.zeros((2, 3, 8, 8), np.uint8)
    assert np.isfinite(OnnxStudent(tmp_path / "bundle" / "model.onnx").logits(images)).all()
    card, said = (tmp_path / "bundle" / "MODEL_CARD.md").read_text(), str(study.summary())
    for text in (card, said):
        assert (f"{parameters - zeros:,} of" in text) == (sparsity > 0)
