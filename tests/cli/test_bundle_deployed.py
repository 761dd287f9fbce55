"""A bundle of a network that is trained with branches, from weights of a file, and shipped without them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import typer.testing
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.bundle.contents import read_record
from igkd_hpo.bundle.deployed_form import deployed_form
from igkd_hpo.bundle.measuring import draw_training_images
from igkd_hpo.bundle.prediction import predict_images
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.cli.app import app
from igkd_hpo.config.reading import parse_study, read_study
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.models import Network, count_parameters, to_pixels
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.search.lease import Claim
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_student
from igkd_hpo.trial.checkpoint import load_checkpoint
from tests.cli.conftest import STUDY
from tests.cli.test_bundle import PLAIN
from tests.fixtures.bundles import Trained, bundled

CPU = torch.device("cpu")
NAME = "timm/mobileone_s0"
BRANCHED = STUDY.replace("controls: [student, kd_ig]", "controls: []").replace(
    "width: 0.25\npruner",
    f"width: 0.25\n  architecture: {NAME}\n  stages_removed: 3\n  init: pretrained\n"
    f"student: {{weights: {{{NAME}: begin.safetensors, torchvision/alexnet: another.pt}}}}\npruner",
)
runner = typer.testing.CliRunner()


def show_batches(study: Study, claim: Claim, assets: Assets) -> Trained:
    """Show a student a few batches, so that its branches have statistics to merge."""
    student = make_student(study, claim.hyperparameters, assets, seed=claim.seed).network.train()
    with torch.no_grad():
        for batch in assets.dataset.train_images[:512].split(128):
            student(to_pixels(batch))
    dataset = assets.dataset
    result = accuracy(predict(student, dataset.validation_images, device=CPU), dataset.validation_labels)
    return Trained(student.body, result)


@pytest.fixture(scope="module")
def place(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with `bundle`, written in opset 18, and the trial's checkpoint, `trial.pt`."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copytree(prepared / "storage" / "assets", folder / "storage" / "assets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(NAME.removeprefix("timm/")).state_dict(), folder / "begin.safetensors")
        with bundled(folder, BRANCHED, show_batches, flags=("--opset", "18")):
            shutil.copy(Settings.resolve().paths.checkpoint("tiny", 0, 1), "trial.pt")
            yield folder


@pytest.fixture
def bundle(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place / "bundle"


def trained_logits(place: Path, images: torch.Tensor) -> np.ndarray:
    """What the network answers in the form in which the checkpoint keeps it, branches and all."""
    config = parse_study(BRANCHED, source="study.yaml")
    assets = open_assets(config, Settings.resolve())
    network = make_student(config, config.hyperparameters.middle(), assets, seed=0).network
    network.body.load_state_dict(load_checkpoint(place / "trial.pt").weights)
    return predict(network, images, device=CPU).numpy()


def test_every_file_has_the_deployed_form_and_answers_as_the_trained_one(place: Path, bundle: Path) -> None:
    kept, shipped = load_checkpoint(place / "trial.pt").weights, load_file(bundle / "model.safetensors")
    assert any("conv_kxk" in name for name in kept)
    assert not any("conv_kxk" in name for name in shipped)
    record = read_record(bundle)
    parameters = sum(tensor.numel() for tensor in shipped.values())
    assert f"\n{parameters:,} parameters" in (bundle / "MODEL_CARD.md").read_text()
    assert (bundle / "model.onnx").stat().st_size < 4 * sum(tensor.numel() for tensor in kept.values()) / 2
    images = open_assets(parse_study(BRANCHED, source="study.yaml"), Settings.resolve()).dataset.train_images[:100]
    wanted = trained_logits(place, images)
    found = OnnxStudent(bundle / "model.onnx").logits(images.numpy())
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert record.onnx.test_agreement == 1


def test_the_opset_is_the_one_that_was_asked_for(bundle: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        assert {each.version for each in onnx.load(bundle / name).opset_import if not each.domain} == {18}
    assert read_record(bundle).opset == 18


@pytest.mark.parametrize("flags", [["--bundle", "new", "--opset", "17"], ["--opset", "20"]])
def test_an_opset_that_cannot_be_had_is_refused(bundle: Path, flags: list[str]) -> None:
    done = runner.invoke(app, ["export", "tiny", *flags])
    assert isinstance(done.exception, UsageError)
    assert flags[-1] in str(done.exception)
    assert not (bundle.parent / "new").exists()


def test_the_card_builds_the_deployed_form_without_this_project(bundle: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(photo)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(photo)], cwd=bundle, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    by_onnx, by_torch = (json.loads(line)[0] for line in done.stdout.split("\n")[1::2])
    assert by_torch == pytest.approx(by_onnx, abs=1e-4 * max(map(abs, by_onnx)))
    (prediction,), _ = predict_images(bundle, [photo])
    assert done.stdout.split("\n")[0] == prediction.classes[0][0]


def test_the_card_and_the_weights_name_what_the_student_began_with(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text()
    assert f"`{NAME}`, stages_removed 3" in card
    assert "`begin.safetensors`, licence not known" in card
    with safe_open(bundle / "model.safetensors", "pt") as file:
        facts = file.metadata()
    assert json.loads(facts["architecture"]) == {"name": NAME, "stages_removed": 3}
    began = json.loads(facts["began_with"])
    assert (began["source"], began["licence"], began["url"]) == ("begin.safetensors", None, None)
    assert len(began["sha256"]) == 64


def test_the_way_to_int8_that_agrees_best_is_kept_and_told(bundle: Path) -> None:
    record = read_record(bundle)
    (kept,) = (one for one in record.quantisations if one.kept)
    assert len({(one.weights, one.activations) for one in record.quantisations}) == 4
    assert kept.agreement == max(one.agreement for one in record.quantisations)
    # Half of 574 training images calibrate or judge at the most, and fewer make histograms.
    assert {one.calibrated_on for one in record.quantisations} == {287, 128}
    assert {one.images for one in record.quantisations} == {287}
    assets = open_assets(parse_study(BRANCHED, source="study.yaml"), Settings.resolve())
    _, judged = draw_training_images(assets)
    answers = [OnnxStudent(bundle / name).logits(judged).argmax(axis=1) for name in ("model.onnx", "model.int8.onnx")]
    assert (answers[0] == answers[1]).mean() == kept.agreement
    assert f"weights {kept.weights}, activations by {kept.activations}" in (bundle / "MODEL_CARD.md").read_text()


def test_the_study_file_names_the_weights_of_its_own_student_alone(bundle: Path) -> None:
    assert read_study(bundle / "best.yaml").student.weights == {NAME: "begin.safetensors"}


class Branched(nn.Module):
    """A network whose deployed form forgets a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(192, 2), nn.Linear(192, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return self.one(flat) + (0 if self.other is None else self.other(flat))

    def deploy(self) -> None:
        self.other = None


def test_a_deployed_form_that_answers_otherwise_is_not_shipped() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 3, 8, 8), dtype=np.uint8)
    network = Network(Branched(), [0.5] * 3, [0.5] * 3).eval()
    with pytest.raises(IgkdError, match="deployed form of mine:student"):
        deployed_form(network, "mine:student", images)
    nn.init.zeros_(network.body.other.weight)
    nn.init.zeros_(network.body.other.bias)
    shipped = deployed_form(network, "mine:student", images)
    assert count_parameters(shipped) == 386
    assert count_parameters(network) == 772
