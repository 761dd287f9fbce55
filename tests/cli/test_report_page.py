"""`report` on real digits: the file that it writes, and the images in it."""

import base64
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.testing
from PIL import Image
from sqlalchemy import text

from igkd_hpo.assets import study_assets
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.cli.app import app
from igkd_hpo.config.reading import parse_study
from igkd_hpo.errors import UsageError
from igkd_hpo.report.gallery import N_IMAGES
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_execution, make_student
from igkd_hpo.trial.checkpoint import Checkpoint, checkpoint_mark, save_checkpoint
from tests.cli.conftest import STUDY

runner = typer.testing.CliRunner()


@pytest.fixture
def tiny(tmp_path: Path, prepared: Path) -> Iterator[SearchStudy]:
    """The tiny study without a trial, in the current directory."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "assets").symlink_to(prepared / "storage" / "assets")
    settings = Settings.resolve()
    config = parse_study(STUDY, source="study.yaml")
    assets = open_assets(config, settings)
    pins = AssetPins(dataset_sha256=assets.dataset.sha256, teacher_sha256=assets.teacher_sha256)
    storage = open_storage(settings.storage_url, create=True)
    yield create_or_open(storage, config, n_trials=None, pins=pins)
    storage.engine.dispose()


def complete_one(study: SearchStudy) -> Path:
    """Complete the next trial with a network that learned nothing; its checkpoint."""
    settings, leases = Settings.resolve(), Leases(study)
    claim = leases.claim(Worker(name="here", process=this_process()))
    assert isinstance(claim, Claim)
    assets = open_assets(study.config, settings)
    network = make_student(study.config, claim.hyperparameters, assets, seed=claim.seed).network
    path = settings.paths.checkpoint(study.name, claim.number, claim.attempt)
    checkpoint = Checkpoint(
        fingerprint=checkpoint_mark(study.config, assets.pins),
        hyperparameters=claim.hyperparameters,
        seed=claim.seed,
        training=None,
        weights=network.body.state_dict(),
        metrics=(),
        result=0.1,
    )
    save_checkpoint(path, checkpoint)
    execution = make_execution(study.config, "mobilenet_v2", assets, torch.device("cpu")).model_dump(mode="json")
    assert leases.complete(claim, 0.1, {"execution": execution})
    return path


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in found]


def test_the_images_are_those_of_the_training_split(tiny: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = complete_one(tiny)

    def hostile(*arguments: object) -> Assets:
        assets = open_assets(*arguments)  # type: ignore[arg-type]
        names = ("<script>", *assets.dataset.class_names[1:])
        return dataclasses.replace(assets, dataset=dataclasses.replace(assets.dataset, class_names=names))

    monkeypatch.setattr(study_assets, "open_assets", hostile)
    done = runner.invoke(app, ["report", "tiny", "-o", "page.html"])
    assert (done.exit_code, done.stdout) == (0, "page.html\n")
    assert "replaced" not in done.stderr
    html = Path("page.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    shown = pictures(html)
    assert len(shown) == 4 * N_IMAGES, "image, teacher's map, student's map, overlay"
    images = open_assets(tiny.config, Settings.resolve()).dataset.train_images.numpy().transpose(0, 2, 3, 1)
    for picture in shown[::4]:
        assert (images == picture).all(axis=(1, 2, 3)).any()
    assert not any(np.array_equal(teacher, student) for teacher, student in zip(shown[1::4], shown[2::4], strict=True))
    assert not Settings.resolve().paths.test_split_log.exists(), "the test split stays closed"

    rename = "UPDATE studies SET study_name = :name"
    with tiny.storage.engine.begin() as connection:
        connection.execute(text(rename), {"name": "renamed"})
    renamed = runner.invoke(app, ["report", "renamed", "-o", "renamed.html"])
    with tiny.storage.engine.begin() as connection:
        connection.execute(text(rename), {"name": "tiny"})
    assert renamed.exit_code == 0
    assert len(pictures(Path("renamed.html").read_text(encoding="utf-8"))) == 4 * N_IMAGES

    checkpoint.unlink()
    again = runner.invoke(app, ["report", "tiny", "-o", "page.html"])
    assert again.exit_code == 0
    assert re.search(r"page\.html .*replaced", again.stderr)
    html = Path("page.html").read_text(encoding="utf-8")
    assert re.search("weights of trial 0 of tiny .* storage/checkpoints ", html)
    assert len(pictures(html)) == 3 * N_IMAGES


def test_without_a_completed_trial_it_writes_and_ends_with_3(tiny: SearchStudy) -> None:
    done = runner.invoke(app, ["report"])
    assert done.exit_code == 3
    assert "tiny has no completed trial" in done.stderr
    assert "No trial has completed yet." in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("output", "message"), [(".", "is a folder; name a file"), ("no/page.html", "no folder no;")])
def test_a_place_that_cannot_be_is_refused(tiny: SearchStudy, output: str, message: str) -> None:
    done = runner.invoke(app, ["report", "-o", output])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
