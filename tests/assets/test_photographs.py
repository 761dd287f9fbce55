"""People's photographs: lists, copies, sizes that do not fit, and more of them than the disk takes."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igkd_hpo import image_file
from igkd_hpo.assets import files
from igkd_hpo.assets.dataset import dataset_request, open_dataset, prepare_dataset
from igkd_hpo.assets.splits import split_rows
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.errors import AssetError, DataError
from igkd_hpo.image_fit import fit_square
from igkd_hpo.settings import Settings
from igkd_hpo.sources import Images

from .conftest import RecordingProgress, coded_image, write_png

CONFIG = DatasetConfig(name="folder", root="images", validation_fraction=0.25, test_fraction=0.25)


@pytest.fixture
def splits(images: Path) -> Path:
    """The folder `images`, with a val/ and a test/ of 4 images of each class."""
    for label, name in enumerate(("left", "right")):
        for number in range(4):
            for split, first in (("val", 100), ("test", 200)):
                write_png(images / split / name / f"{number}.png", coded_image(label, first + 10 * label + number))
    return images


def write_list(root: Path, *, ends: str = "\n", split: bool = True) -> Path:
    """A list of all images below a folder, beside it."""
    path = root.parent / "images.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator=ends)
        writer.writerow(["path", "label", "split"][: 2 + split])
        for image in sorted(root.rglob("*.png"), reverse=True):
            split_name, label, _ = image.relative_to(root).parts
            writer.writerow([image.relative_to(root.parent), label, split_name][: 2 + split])
    return path


@pytest.mark.parametrize("split", [True, False])
def test_a_list_makes_the_data_set_of_its_folder(
    splits: Path, settings: Settings, store, progress: RecordingProgress, split: bool
) -> None:
    if not split:
        for name in ("val", "test"):
            shutil.rmtree(splits / name)
    of_folder = prepare_dataset(CONFIG, settings, store, progress)
    write_list(splits, ends="\r\n", split=split)
    config = CONFIG.model_copy(update={"root": "images.csv"})
    of_list = prepare_dataset(config, settings, store, progress)
    assert of_list.sha256 == of_folder.sha256
    assert of_list.folder != of_folder.folder
    assert of_list.own_validation is split
    assert open_dataset(config, store).sha256 == of_list.sha256
    assert progress.warnings == []


def test_a_changed_label_in_a_list_makes_another_data_set(
    images: Path, settings: Settings, store, progress: RecordingProgress
) -> None:
    path, config = write_list(images), CONFIG.model_copy(update={"root": "images.csv"})
    first = prepare_dataset(config, settings, store, progress)
    path.write_text(path.read_text().replace("left/001.png,left", "left/001.png,right"))
    assert prepare_dataset(config, settings, store, progress).sha256 != first.sha256


def test_an_unreadable_image_of_a_list_is_named(
    images: Path, settings: Settings, store, progress: RecordingProgress
) -> None:
    (images / "train" / "left" / "000.png").write_bytes(b"damaged")
    path = write_list(images)
    path.write_text(
        path.read_text() + f"images,left,train\n{path.name},left,train\nimages/./train/left/001.png,left,train"
    )
    prepare_dataset(CONFIG.model_copy(update={"root": "images.csv"}), settings, store, progress)
    (unreadable,) = progress.warnings
    assert unreadable.startswith("3 of 82 images cannot be read: images (a folder, no regular file), ")
    assert any("1 line too many: images/train/left/001.png" in note for note in progress.notes)


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
def test_each_fit_has_its_own_pixels_and_asset(
    images: Path, settings: Settings, store, progress: RecordingProgress, fit: str
) -> None:
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8))
    wide.save(images / "train" / "left" / "000.png")
    config = CONFIG.model_copy(update={"image_size": 8, "fit": fit})
    dataset = prepare_dataset(config, settings, store, progress)
    test_images, _ = open_test(config, settings, purpose=TestPurpose.BENCHMARK)
    every = np.concatenate([dataset.train_images, dataset.validation_images, test_images])
    wanted = np.asarray(fit_square(wide, 8, fit)).transpose(2, 0, 1)  # type: ignore[arg-type]
    assert any(np.array_equal(wanted, image) for image in every)
    assert ("fit" in dataset_request(config)) is (fit != "squeeze"), "which data sets of before are found by"
    assert any("1 of 80 images are more than 1.2 times" in note for note in progress.notes) is (fit == "squeeze")


@pytest.mark.parametrize(("fit", "small"), [("crop", 2), ("squeeze", 2), ("pad", 1)])
def test_images_that_are_enlarged_are_counted(
    images: Path, settings: Settings, store, progress: RecordingProgress, fit: str, small: int
) -> None:
    for path in images.rglob("*.png"):
        Image.open(path).resize((16, 16), Image.Resampling.NEAREST).save(path)
    Image.new("RGB", (10, 30)).save(images / "train" / "left" / "000.png")
    Image.new("RGB", (9, 9)).save(images / "train" / "left" / "001.png")
    (images / "train" / "left" / "002.png").write_bytes(b"damaged, and of no size")
    config = CONFIG.model_copy(update={"image_size": 16, "fit": fit})
    prepare_dataset(config, settings, store, progress)
    told = f"{small} of 79 images are smaller than dataset.image_size, 16, and are enlarged: most of all "
    assert f"{told}train/left/001.png (9x9)" in progress.notes


def test_a_copy_in_another_split_is_told_by_name(
    splits: Path, settings: Settings, store, progress: RecordingProgress
) -> None:
    """The same pixels in another file format: no byte of the files is the same."""
    Image.open(splits / "train" / "left" / "003.png").save(splits / "test" / "left" / "leak.bmp")
    shutil.copy(splits / "val" / "right" / "1.png", splits / "test" / "right" / "leak.png")
    dataset = prepare_dataset(CONFIG, settings, store, progress)
    (warning,) = progress.warnings
    assert "1 of 10 test images are also in train (train/left/003.png and test/left/leak.bmp)" in warning
    assert "1 of 10 test images are also in validation (val/right/1.png and test/right/leak.png)" in warning
    assert open_dataset(CONFIG, store).warnings == dataset.warnings == (warning,)


def test_a_copy_in_another_class_is_told_by_name(
    splits: Path, settings: Settings, store, progress: RecordingProgress
) -> None:
    for number in range(5):
        shutil.copy(splits / "train" / "left" / f"00{number}.png", splits / "train" / "right" / f"copy-{number}.png")
    prepare_dataset(CONFIG, settings, store, progress)
    (warning,) = progress.warnings
    assert warning.startswith("10 images have a copy in another class, such as 'left' and 'right' (train/left/000.png ")
    assert " and train/right/copy-2.png and 2 more); " in warning


def test_copies_in_one_split_and_class_are_no_fault(
    images: Path, settings: Settings, store, progress: RecordingProgress
) -> None:
    for label, name in enumerate(("left", "right")):
        write_png(images / "val" / name / "0.png", coded_image(label, 100 + label))
        write_png(images / "test" / name / "0.png", coded_image(label, 200 + label))
    shutil.copy(images / "train" / "left" / "000.png", images / "train" / "left" / "again.png")
    prepare_dataset(CONFIG, settings, store, progress)
    assert progress.warnings == []


def free_bytes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=count)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)


def test_a_disk_too_small_is_told_before_anything_is_written(
    images: Path, settings: Settings, store, progress: RecordingProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"image_size": 64})
    pixels = 2 * 80 * 3 * 64 * 64  # as they are read, and in their splits
    free_bytes(monkeypatch, pixels)
    with pytest.raises(AssetError, match=r"it would take 1\.9 MiB, and 1\.9 MiB are free; free space, or start in a"):
        prepare_dataset(config, settings, store, progress)
    assert [path.name for path in settings.paths.assets.iterdir()] == ["locks"]
    free_bytes(monkeypatch, pixels + 80 * 64)
    assert prepare_dataset(config, settings, store, progress).image_size == (64, 64)


def test_what_an_interrupted_run_took_is_not_asked_for_again(
    images: Path, settings: Settings, store, progress: RecordingProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"image_size": 64})
    read = image_file.examine_image

    def be_interrupted(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "020.png":
            raise KeyboardInterrupt
        return read(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(image_file, "examine_image", be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(config, settings, store, progress)
    monkeypatch.setattr(image_file, "examine_image", read)
    free_bytes(monkeypatch, 80 * 3 * 64 * 64 + 80 * 64)  # for the splits alone
    assert prepare_dataset(config, settings, store, progress).image_size == (64, 64)


def test_images_that_a_source_has_in_memory_need_room_too(
    settings: Settings, store, progress: RecordingProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes(monkeypatch, 1000)
    with pytest.raises(AssetError, match=r"it would take 337 KiB, and 1\.0 KiB are free; "):
        prepare_dataset(DatasetConfig(name="digits"), settings, store, progress)
    assert [path.name for path in settings.paths.assets.iterdir()] == ["locks"]


def test_one_image_of_a_class_is_enough_where_all_splits_are_given_and_else_told() -> None:
    source = Images(
        images=np.zeros((9, 3, 8, 8), np.uint8),
        labels=np.array([0, 1, 2] * 3),
        n_train=3,
        n_validation=3,
        class_names=("a", "b", "c"),
    )
    assert len(split_rows(source, CONFIG).train) == 3
    few = Images(images=source.images, labels=np.repeat([0, 1, 2], [7, 1, 1]), n_train=9, class_names=("a", "b", "c"))
    with pytest.raises(DataError, match=r"class 'b', one of 2 with too few, has 1 image to train on, and .* need 6 of"):
        split_rows(few, CONFIG)
