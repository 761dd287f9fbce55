"""A bundle from a tiny study of real digits: made once, then measured, verified, used and damaged."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.testing
from PIL import Image

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.bundle import contents
from igkd_hpo.bundle.contents import check_files, read_record
from igkd_hpo.bundle.prediction import predict_images
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.bundle.verification import verify_bundle
from igkd_hpo.cli.app import app
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.evaluation import predict
from igkd_hpo.errors import DataError, IgkdError, UsageError
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.lease import Claim
from igkd_hpo.search.storage import open_storage
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_student, make_trial
from tests.cli.conftest import STUDY
from tests.fixtures.bundles import Trained, bundled

CPU = torch.device("cpu")
QUIET = SilentProgress()
runner = typer.testing.CliRunner()


def train_one_trial(study: Study, claim: Claim, assets: Assets) -> Trained:
    """What a trial process does, in this process."""
    trial = make_trial(study, claim.hyperparameters, assets, seed=claim.seed, device=CPU)
    metrics = tuple(trial.training.epochs())
    facts = {"execution": trial.execution.model_dump(mode="json")}
    return Trained(trial.training.network.body, metrics[-1].validation_accuracy, metrics, facts)


@pytest.fixture(scope="module")
def place(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a study of one trained trial, and `bundle`, which `export` made there."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "storage").mkdir()
    (folder / "storage" / "assets").symlink_to(prepared / "storage" / "assets")
    text = STUDY.replace("controls: [student, kd_ig]", "controls: []")
    with bundled(folder, text, train_one_trial) as said:
        (folder / "said.txt").write_text(said)
        yield folder


@pytest.fixture
def bundle(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place / "bundle"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture
def network(bundle: Path) -> torch.nn.Module:
    """The network of the bundle, from its study file and its weights."""
    from safetensors.torch import load_file

    study = read_study(bundle / contents.STUDY)
    assets = open_assets(study, Settings.resolve())
    student = make_student(study, study.hyperparameters.fixed(), assets, seed=0).network
    student.body.load_state_dict(load_file(bundle / contents.WEIGHTS), strict=True)
    return student.eval()


def test_a_bundle_is_whole_and_says_what_it_is(place: Path, bundle: Path) -> None:
    names = {"best.yaml", "model.safetensors", "model.onnx", "model.int8.onnx", "MODEL_CARD.md", "verify.json"}
    assert {path.name for path in bundle.iterdir()} == names
    assert [path.name for path in place.glob(".bundle*")] == []
    record = read_record(bundle)
    assert record.files.keys() == names - {"verify.json"}
    check_files(bundle, record)
    card = (bundle / "MODEL_CARD.md").read_text()
    study = read_study(bundle / "best.yaml")
    assert study.provenance is not None
    facts = study.provenance.model_extra or {}
    for fact in (facts["dataset_sha256"], facts["teacher_sha256"], f"{facts['parameters']:,} parameters"):
        assert fact in card
    assert record.versions["onnxruntime"] == version("onnxruntime")
    said = (place / "said.txt").read_text()
    assert f"{100 * record.int8.validation_accuracy:.2f} %" in said
    assert f"{record.int8.latency_ms:.3f} ms" in said
    assert "checkpoint of trial 0" in said


def test_onnx_answers_as_pytorch_on_every_test_image(bundle: Path, network: torch.nn.Module) -> None:
    study = read_study(bundle / "best.yaml")
    images, _ = open_test(study.dataset, Settings.resolve(), purpose=TestPurpose.EXPORT_PARITY)
    wanted = predict(network, images, device=CPU).numpy()  # type: ignore[arg-type]
    student = OnnxStudent(bundle / "model.onnx")
    logits = student.logits(images.numpy())
    assert np.abs(logits - wanted).max() < 1e-4
    assert (logits.argmax(axis=1) == wanted.argmax(axis=1)).all()
    assert len(images) == read_record(bundle).onnx.test_images == 1079
    assert student.class_names == tuple("0123456789")
    # Any number of images, one as many.
    assert np.abs(student.logits(images[:1].numpy()) - wanted[:1]).max() < 1e-4


PLAIN = """
import json, sys
from importlib import import_module
from pathlib import Path

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "igkd_hpo":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())  # it may lie beside torch: no path leaves it out
try:
    import_module("igkd_hpo")
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("igkd_hpo can be imported")
codes = Path("MODEL_CARD.md").read_text().split("```python\\n")[1:]
assert len(codes) == 2
for code in codes:
    for photo in sys.argv[1:]:
        names = {}
        exec(code.split("```")[0].replace("photo.jpg", photo), names)
        print(json.dumps(names["logits"].tolist()))
"""


def test_the_card_is_enough_without_this_project(copy: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    """Its code, run where igkd_hpo cannot be imported, answers as `predict` does: large, turned and grey images too."""
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    photos = [tmp_path / "large.jpg", tmp_path / "turned.jpg", tmp_path / "grey.png"]
    Image.fromarray(random.integers(0, 256, (60, 90, 3), dtype=np.uint8)).resize((900, 600)).save(photos[0])
    Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(photos[1], exif=turned)
    Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(photos[2])
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, *map(str, photos)], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, _ = done.stdout.split("\n")
    answers, logits = said[::2], [json.loads(line)[0] for line in said[1::2]]
    wanted = [prediction.classes for prediction in predict_images(copy, photos)[0]]
    assert answers == 2 * [likeliest[0][0] for likeliest in wanted]
    for row, likeliest in zip(logits, 2 * wanted, strict=True):
        shares = torch.tensor(row).softmax(dim=0)
        for name, share in likeliest:
            assert shares[int(name)].item() == pytest.approx(share, abs=1e-4)


def test_the_weights_say_what_they_are(bundle: Path, network: torch.nn.Module) -> None:
    from safetensors import safe_open

    with safe_open(bundle / contents.WEIGHTS, "pt") as file:
        facts = file.metadata()
    assert facts["igkd_hpo_format"] == "1"
    assert json.loads(facts["architecture"]) == {"name": "mobilenet_v2", "layers_removed": 17, "width": 0.25}
    assert (json.loads(facts["image_size"]), json.loads(facts["channels"])) == ([8, 8], 3)
    assert json.loads(facts["classes"]) == list("0123456789")
    for name in ("mean", "std"):
        assert torch.equal(torch.tensor(json.loads(facts[name])), getattr(network, name).flatten())


def test_the_figures_are_measured(bundle: Path, network: torch.nn.Module) -> None:
    study = read_study(bundle / "best.yaml")
    test_images, _ = open_test(study.dataset, Settings.resolve(), purpose=TestPurpose.EXPORT_PARITY)
    trained = predict(network, test_images, device=CPU).argmax(dim=1).numpy()  # type: ignore[arg-type]
    assets = open_assets(study, Settings.resolve())
    images, labels = assets.dataset.validation_images.numpy(), assets.dataset.validation_labels.numpy()
    record = read_record(bundle)
    for name, figures in (("model.onnx", record.onnx), ("model.int8.onnx", record.int8)):
        student = OnnxStudent(bundle / name)
        assert figures.validation_accuracy == (student.logits(images).argmax(axis=1) == labels).mean()
        assert figures.test_agreement == (student.logits(test_images.numpy()).argmax(axis=1) == trained).mean()
        assert 0 < figures.latency_ms <= figures.latency_ms_p95
        assert figures.validation_images == len(labels)
        right = [round(one.validation_accuracy * len(labels)) for one in (record.onnx, figures)]
        assert figures.gained is not None
        assert figures.lost is not None
        assert figures.gained - figures.lost == right[1] - right[0]
    assert record.onnx.test_agreement == 1
    assert record.onnx.largest_logit_difference < 1e-4 < record.int8.largest_logit_difference


def test_the_files_name_no_place_of_the_machine_that_made_them(bundle: Path, repository: Path) -> None:
    for path in bundle.iterdir():
        content = path.read_bytes()
        assert str(repository).encode() not in content, path.name
        assert b"site-packages" not in content, path.name


def test_it_is_verified_from_its_file_alone(copy: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = copy.parent / "elsewhere"
    (elsewhere / "storage").mkdir(parents=True)
    (elsewhere / "storage" / "assets").symlink_to(prepared / "storage" / "assets")
    monkeypatch.chdir(elsewhere)
    done = runner.invoke(app, ["verify", str(copy), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["inside"] is True
    assert found["validation_accuracy"] == read_record(copy).expected.validation_accuracy
    assert not (elsewhere / "storage" / "igkd_hpo.db").exists()


@pytest.mark.parametrize("name", ["best.yaml", "model.onnx", "model.safetensors", "MODEL_CARD.md"])
def test_a_changed_file_is_noticed(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} was changed"):
        verify_bundle(copy, Settings.resolve(), seed=None, device="cpu", output=None, progress=QUIET)
    if name == "model.onnx":
        with pytest.raises(DataError, match=f"{name} was changed"):
            predict_images(copy, [])


def test_what_is_no_bundle_is_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"verify\.json.*`igkd-hpo export --bundle DIR`"):
        read_record(tmp_path)
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors .* No such file"):
        check_files(copy, read_record(copy))
    (copy / "verify.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"verify\.json .*\(\w+: "):
        read_record(copy)


def test_images_are_predicted(bundle: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    study = read_study(bundle / "best.yaml")
    images, _ = open_test(study.dataset, Settings.resolve(), purpose=TestPurpose.EXPORT_PARITY)
    paths = []
    for row in range(3):
        path = tmp_path / f"{row}.png"
        Image.fromarray(images[row].numpy().transpose(1, 2, 0)).save(path)
        paths.append(path)
    done = runner.invoke(app, ["predict", str(bundle), *map(str, paths), "--json"])
    assert done.exit_code == 0, done.output
    wanted = torch.softmax(predict(network, images[:3], device=CPU), dim=1)  # type: ignore[arg-type]
    for row, found in enumerate(json.loads(done.stdout)):
        shares, classes = wanted[row].topk(3)
        assert found["image"] == str(paths[row])
        assert [c["name"] for c in found["classes"]] == [str(k) for k in classes.tolist()]
        assert [c["probability"] for c in found["classes"]] == pytest.approx(shares.tolist(), abs=1e-5)
    # Of another size: resized as a data set's images are.
    large = Image.fromarray(images[0].numpy().transpose(1, 2, 0)).resize((80, 60), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.png")
    assert len(predict_images(bundle, [tmp_path / "large.png"])[0][0].classes) == 3


def test_a_file_that_is_no_image_is_named(bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    done = runner.invoke(
        app, ["predict", str(bundle), *[str(tmp_path / name) for name in ("notes.txt", "good.png", "gone.png")]]
    )
    assert isinstance(done.exception, DataError)
    assert done.exception.exit_code == 2
    first, second = str(done.exception).splitlines()
    assert "notes.txt" in first
    assert "gone.png" in second
    (good,) = done.stdout.splitlines()
    assert "good.png: " in good


def test_a_folder_that_holds_something_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = runner.invoke(app, ["export", "tiny", "--bundle", str(tmp_path / "mine")])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(f"{tmp_path / 'mine'} ")
    assert "--bundle" in str(done.exception)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_failure_leaves_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igkd_hpo.bundle.making.write_onnx", _fail)
    done = runner.invoke(app, ["export", "tiny", "--bundle", str(tmp_path / "new")])
    assert isinstance(done.exception, IgkdError)
    assert "no ONNX today" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def _fail(*_: object, **__: object) -> None:
    raise IgkdError("no ONNX today")


def test_without_its_packages_a_bundle_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "igkd_hpo.bundle.runtime.find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    for arguments in (["export", "tiny", "--bundle", "new"], ["predict", str(bundle), "image.png"]):
        done = runner.invoke(app, arguments)
        assert isinstance(done.exception, UsageError)
        assert "pip install 'igkd-hpo[bundle]'" in str(done.exception)


def test_lost_weights_are_trained_again(place: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    from igkd_hpo.bundle.making import trained_network
    from igkd_hpo.search.export import exported_study
    from igkd_hpo.search.study import open_study

    settings = Settings.resolve()
    study = open_study(open_storage(settings.storage_url, create=False), "tiny")
    best = best_trial(study)
    checkpoints = settings.paths.checkpoints
    checkpoints.rename(place / "away")
    try:
        assets = open_assets(study.config, settings)
        network, accuracy, source = trained_network(study, best, exported_study(study, best), assets, settings, QUIET)
    finally:
        (place / "away").rename(checkpoints)
    assert "done again" in source
    assert accuracy == best.validation_accuracy
    kept = load_file(bundle / "model.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.body.state_dict().items())


def test_a_study_file_that_is_there_is_said_to_be_replaced(place: Path, bundle: Path) -> None:
    first = runner.invoke(app, ["export", "tiny", "-o", "once.yaml"])
    again = runner.invoke(app, ["export", "tiny", "-o", "once.yaml"])
    assert "replaced" not in first.stderr
    assert "once.yaml (replaced): trial 0" in again.stderr
