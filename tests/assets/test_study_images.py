"""Other images than an existing study's are refused before a teacher is trained on them."""

from dataclasses import replace

import pytest

import igkd_hpo
from igkd_hpo.api.launch import dry_run
from igkd_hpo.api.source import settings_here
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.study_images import check_unread_images
from igkd_hpo.errors import DataError
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open

from .conftest import coded_image, make_study, write_png


@pytest.fixture
def launched(images, settings, store, progress, monkeypatch):
    """Create a study of these images, in the current directory, whose teacher is never made."""
    monkeypatch.chdir(settings.paths.root.parent)
    monkeypatch.setenv("IGKD_HPO_DATA", str(settings.data_root))
    study = make_study(teacher={"architecture": "mobilenet_v2", "width": 0.25, "epochs": 1})
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    pins = AssetPins(dataset_sha256=dataset.sha256, teacher_sha256="t" * 64)
    storage = open_storage(f"sqlite:///{settings.paths.database}", create=True)
    create_or_open(storage, study, n_trials=None, pins=pins)
    return study, pins


def refused(study, store):
    """What launch and its dry run say; nothing was made of the images."""
    with pytest.raises(DataError) as launch:
        igkd_hpo.launch(study, engine="in_process", progress=False)
    with pytest.raises(DataError) as dry:
        dry_run(study, settings_here(), workers=1, trials=None, device="cpu", new_version=False)
    assert not any(asset.folder.name.startswith("teacher") for asset in store.finished())
    return str(launch.value), str(dry.value)


def test_a_renamed_class_is_named(launched, images, store):
    study, _ = launched
    (images / "train" / "left").rename(images / "train" / "links")
    for said in refused(study, store):
        assert "'left'" in said
        assert "'links'" in said


def test_images_that_came_are_counted(launched, images, store):
    study, _ = launched
    write_png(images / "train" / "left" / "new.png", coded_image(0, 400))
    launch, _ = refused(study, store)
    assert "80" in launch
    assert "81" in launch


def test_a_dry_run_reads_no_image(launched, images, settings):
    study, pins = launched
    assert check_unread_images(study, pins, settings)
    first = next((images / "train" / "left").iterdir())
    first.touch()
    assert not check_unread_images(study, pins, settings), "the pixels may be the same"
    (images / "train" / "left").rename(images / "train" / "links")
    with pytest.raises(DataError, match="'links'"):
        check_unread_images(study, pins, settings)


def test_what_is_not_here_is_not_told(launched, settings):
    study, pins = launched
    other = replace(pins, dataset_sha256="0" * 64)
    with pytest.raises(DataError, match="000000000000"):
        check_unread_images(study, other, settings)
