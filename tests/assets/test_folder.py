"""People's image folders: what is found, in which order, what is left out, and what is refused in one line."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from igkd_hpo.assets.dataset import open_dataset, prepare_dataset
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.study import DatasetConfig
from igkd_hpo.errors import DataError
from igkd_hpo.sources.folder import list_folder

from .conftest import coded_image, write_png

CONFIG = DatasetConfig(name="folder", root="images", validation_fraction=0.25, test_fraction=0.25)


def indices(images):
    """The image numbers that `coded_image` wrote into the corner."""
    return (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()


def prepare(settings, store, progress, config=CONFIG):
    return prepare_dataset(config, settings, store, progress)


def test_rows_keep_the_order_of_classes_and_names_and_every_row_its_label(images, settings, store, progress):
    dataset = prepare(settings, store, progress)
    test_images, test_labels = open_test(CONFIG, settings, purpose=TestPurpose.BENCHMARK)
    assert dataset.class_names == ("left", "right")
    assert dataset.image_size == (8, 8)
    parts = [
        (dataset.train_images, dataset.train_labels),
        (dataset.validation_images, dataset.validation_labels),
        (test_images, test_labels),
    ]
    for pixels, labels in parts:
        assert indices(pixels) == sorted(indices(pixels))
        assert labels.tolist() == pixels[:, 2, 0, 0].long().tolist()
        assert labels.tolist() == [index // 40 for index in indices(pixels)]
    assert sorted(index for pixels, _ in parts for index in indices(pixels)) == list(range(80))
    assert [len(labels) for _, labels in parts] == [45, 15, 20]
    for _, labels in parts:  # stratified
        assert abs(int((labels == 0).sum()) * 2 - len(labels)) <= 1
    first = dataset.train_images[0].permute(1, 2, 0).numpy()
    assert (first == coded_image(0, indices(dataset.train_images)[0])).all()


def test_its_own_test_split_is_taken_as_it_is(images, settings, store, progress):
    for label, name in enumerate(("left", "right")):
        for number in range(3):
            write_png(images / "test" / name / f"{number}.png", coded_image(label, 100 + 10 * label + number))
    dataset = prepare(settings, store, progress)
    pixels, labels = open_test(CONFIG, settings, purpose=TestPurpose.CONFIRM)
    assert indices(pixels) == [100, 101, 102, 110, 111, 112]
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(dataset.train_images) + len(dataset.validation_images) == 80


def test_the_second_time_nothing_is_decoded_and_a_changed_file_makes_a_new_data_set(images, settings, store, progress):
    first = prepare(settings, store, progress)
    progress.tasks.clear()
    again = prepare(settings, store, progress)
    assert (again.sha256, again.folder, progress.tasks) == (first.sha256, first.folder, {})
    assert open_dataset(CONFIG, store).sha256 == first.sha256
    changed = images / "train" / "left" / "000.png"
    write_png(changed, coded_image(0, 39))
    os.utime(changed, (1, 1))
    newer = prepare(settings, store, progress)
    assert newer.sha256 != first.sha256
    assert open_dataset(CONFIG, store).sha256 == newer.sha256


def test_touched_files_with_the_same_content_are_the_same_data_set(images, settings, store, progress):
    first = prepare(settings, store, progress)
    os.utime(images / "train" / "left" / "000.png", (1, 1))
    again = prepare(settings, store, progress)
    assert again.sha256 == first.sha256
    assert again.folder != first.folder


def test_the_split_depends_on_its_seed_alone(images, settings, store, progress):
    first = prepare(settings, store, progress)
    other = prepare(settings, store, progress, CONFIG.model_copy(update={"split_seed": 1}))
    assert indices(first.train_images) != indices(other.train_images)


def test_an_image_just_above_pillows_limit_is_left_out(images, settings, store, progress, monkeypatch):
    Image.new("RGB", (12, 12)).save(images / "train" / "left" / "999.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as it is outside of tests, where warnings are errors
        dataset = prepare(settings, store, progress, CONFIG.model_copy(update={"image_size": 8}))
    assert "999.png (Image size (144 pixels) exceeds limit of 100 pixels" in dataset.warnings[0]


def test_links_and_nested_folders_are_followed_and_cycles_are_not(images, tmp_path):
    nested = images / "train" / "left" / "more" / "deeper"
    write_png(nested / "000a.png", coded_image(0, 0))
    write_png(tmp_path / "elsewhere" / "linked.png", coded_image(0, 1))
    (images / "train" / "left" / "link").symlink_to(tmp_path / "elsewhere")
    (images / "train" / "left" / "file.png").symlink_to(tmp_path / "elsewhere" / "linked.png")
    (nested / "up").symlink_to(images / "train" / "left")
    listing = list_folder(images)
    left = [name for name in listing.files if name.startswith("train/left/")]
    assert left == sorted(left)
    assert set(left) - {f"train/left/{number:03d}.png" for number in range(40)} == {
        "train/left/more/deeper/000a.png",
        "train/left/link/linked.png",
        "train/left/file.png",
    }


def test_other_files_are_counted_and_unreadable_images_named(images, settings, store, progress):
    (images / "train" / "left" / "notes.txt").write_text("not an image")
    (images / "train" / "right" / ".hidden.png").write_text("left by a camera")
    (images / "train" / "left" / "999.png").write_text("not an image either")
    dataset = prepare(settings, store, progress)
    assert dataset.warnings == tuple(progress.warnings)
    skipped, unreadable = dataset.warnings
    assert skipped.startswith("2 files in ")
    assert skipped.endswith(": train/left/notes.txt, train/right/.hidden.png")
    assert unreadable.startswith("1 of 81 images ")
    assert ": train/left/999.png (cannot identify image file" in unreadable
    assert open_dataset(CONFIG, store).warnings == dataset.warnings
    assert len(dataset.train_images) + len(dataset.validation_images) == 60


def test_images_of_any_size_are_resized(images, settings, store, progress):
    Image.new("RGB", (30, 20)).save(images / "train" / "left" / "000.jpg")
    config = CONFIG.model_copy(update={"image_size": 12})
    assert prepare(settings, store, progress, config).image_size == (12, 12)


def test_different_sizes_without_image_size_name_two_files(images, settings, store, progress):
    Image.new("RGB", (30, 20)).save(images / "train" / "left" / "zzz.png")
    with pytest.raises(DataError, match=r"train/left/000\.png.* 8x8.*train/left/zzz\.png.* 30x20.*dataset\.image_size"):
        prepare(settings, store, progress)


def test_decoding_goes_on_after_a_kill(images, settings, store, progress, monkeypatch):
    from igkd_hpo import image_file
    from igkd_hpo.sources import folder

    monkeypatch.setattr(folder, "_CHUNK_BYTES", 1)  # the smallest chunk: 16 images
    read = image_file.read_image
    seen = []

    def fail_on_the_50th(path, size):
        seen.append(path)
        if len(seen) == 50:
            raise KeyboardInterrupt
        return read(path, size)

    monkeypatch.setattr(image_file, "read_image", fail_on_the_50th)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, store, progress)
    before = len(seen)
    prepare(settings, store, progress)
    assert len(seen) - before < 60  # 80 without going on
    assert indices(open_dataset(CONFIG, store).train_images) == sorted(
        indices(open_dataset(CONFIG, store).train_images)
    )


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def keep(folder, count):
    for path in sorted(folder.iterdir())[count:]:
        path.unlink()


FAULTS = {
    "no root": (remove, "dataset.root .* is no folder"),
    "no train": (lambda root: (root / "train").rename(root / "training"), r" train; .*/images/train/<class>/"),
    "no class": (lambda root: [remove(path) for path in (root / "train").iterdir()], "holds no class"),
    "one class": (lambda root: remove(root / "train" / "left"), "holds only the class 'right'"),
    "empty class": (
        lambda root: (root / "train" / "up").mkdir(),
        r"/train/up .*\.png",
    ),
    "test lacks a class": (
        lambda root: write_png(root / "test" / "left" / "0.png", coded_image(0, 0)),
        "/train .*'right'.*/test ",
    ),
    "test has a class more": (
        lambda root: [write_png(root / "test" / name / "0.png", coded_image(0, 0)) for name in ("left", "right", "up")],
        "/test .*'up'.*/train ",
    ),
    "too few": (
        lambda root: keep(root / "train" / "left", 5),
        r"'left' .* 5 .* 6 .*dataset\.validation_fraction",
    ),
    "a class lost": (
        lambda root: [path.write_bytes(b"") for path in (root / "train" / "left").iterdir()],
        r"40 of 80 .*train/left/000\.png .* 37 more.* train/left:",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_with_the_remedy(images, settings, store, progress, fault):
    spoil, message = FAULTS[fault]
    spoil(images)
    with pytest.raises(DataError, match=message) as caught:
        prepare(settings, store, progress)
    assert "\n" not in str(caught.value)


def test_splits_hold_every_class_whatever_the_shares(settings, store, progress, tmp_path):
    for label, (name, count) in enumerate((("few", 6), ("many", 31))):
        for number in range(count):
            write_png(tmp_path / "images" / "train" / name / f"{number}.png", coded_image(label, number))
    dataset = prepare(settings, store, progress)
    _, test_labels = open_test(CONFIG, settings, purpose=TestPurpose.VERIFY)
    for labels in (dataset.train_labels, dataset.validation_labels, test_labels):
        assert np.bincount(labels.numpy(), minlength=2).min() >= 1
