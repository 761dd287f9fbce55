"""People's image folders: what is found, in which order, what is left out, and what is refused in one line."""

import errno
import os
import socket
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igkd_hpo import image_file
from igkd_hpo.assets.dataset import open_dataset, prepare_dataset
from igkd_hpo.assets.folds import assign_folds
from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.study import DatasetConfig
from igkd_hpo.errors import DataError
from igkd_hpo.image_file import image_suffixes
from igkd_hpo.image_folder import list_folder
from igkd_hpo.names import accept_name
from igkd_hpo.sources import SOURCES, Found, Images, Source
from tests.fixtures.rights import as_anybody

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


@pytest.mark.parametrize("failure", ["no permission", "a disk that fails"])
def test_a_file_that_cannot_be_read_now_is_not_left_out(images, settings, store, progress, monkeypatch, failure):
    path = min((images / "train" / "left").glob("*.png"))
    if failure == "no permission":
        path.chmod(0)
    else:
        monkeypatch.setattr(image_file, "open_regular", partial(fail_at, name=path.name))
    with pytest.raises(DataError, match=rf"cannot read .*/left/{path.name}: .*run again"):
        as_anybody(lambda: prepare(settings, store, progress))
    path.chmod(0o644)  # which changes neither its size nor its time
    monkeypatch.undo()
    dataset = prepare(settings, store, progress)
    assert dataset.remarks == ()
    assert len(dataset.train_images) + len(dataset.validation_images) == 60


def fail_at(path, *, name):
    if path.name == name:
        raise OSError(errno.EIO, "Input/output error", str(path))
    return path.open("rb")


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
    (nested / "round").symlink_to(nested / "round")
    listing = list_folder(images, follow_links=True)
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
    assert ": train/left/notes.txt, train/right/.hidden.png; " in skipped
    assert unreadable.startswith("1 of 81 images ")
    assert ": train/left/999.png (cannot identify image file" in unreadable
    assert open_dataset(CONFIG, store).warnings == dataset.warnings
    assert len(dataset.train_images) + len(dataset.validation_images) == 60


HEIC = b"\0\0\0\x18ftypheic" + bytes(40)


def test_what_a_phone_and_a_file_manager_leave_is_called_by_its_name(images, settings, store, progress):
    left = images / "train" / "left"
    (left / ".DS_Store").write_bytes(b"of a file manager")
    assert prepare(settings, store, progress).warnings == ()
    (left / "1.HEIC").write_bytes(HEIC)
    (left / "2.heif").write_bytes(b"damaged")
    Image.new("RGB", (8, 8)).save(left / "3.HEIC", format="JPEG")
    listing = list_folder(images)
    assert listing.heic == ("train/left/1.HEIC", "train/left/2.heif")
    assert listing.misnamed == ("train/left/3.HEIC (JPEG)",)
    assert listing.skipped == ()
    assert len(prepare(settings, store, progress).warnings) == 2


def test_a_class_of_heic_alone_says_so(images):
    (images / "train" / "new").mkdir()
    (images / "train" / "new" / "1.HEIC").write_bytes(HEIC)
    with pytest.raises(DataError, match="1 of HEIC"):
        list_folder(images)
    (images / "train" / "new" / "1.HEIC").rename(images / "train" / "left" / "1.jpg")
    Image.new("RGB", (8, 8)).save(images / "train" / "new" / "1.heic", format="PNG")
    with pytest.raises(DataError, match=r"1\.heic \(PNG\)"):
        list_folder(images)
    with pytest.raises(image_file.UnreadableImageError, match="HEIC"):
        image_file.read_image(images / "train" / "left" / "1.jpg", None)


def test_all_classes_without_images_are_named_at_once(images):
    for name in ("new", "other"):
        (images / "train" / name).mkdir()
    with pytest.raises(DataError, match=r"train/new holds no images .*train/other\b"):
        list_folder(images)


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
    read = image_file.examine_image
    seen = []

    def fail_on_the_50th(path, size, **options):
        seen.append(path)
        if len(seen) == 50:
            raise KeyboardInterrupt
        return read(path, size, **options)

    monkeypatch.setattr(image_file, "examine_image", fail_on_the_50th)
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
    "no root": (remove, "dataset.root .* is no folder; .* launch the file .* IGKD_HPO_DATA"),
    "no train": (lambda root: remove(root / "train"), "has no folder train; put the images into"),
    "train by another name": (
        lambda root: (root / "train").rename(root / "Training"),
        "has no folder train; if Training is meant, rename it to train",
    ),
    "classes without train": (
        lambda root: [[path.rename(root / path.name) for path in (root / "train").iterdir()], (root / "train").rmdir()],
        "if left, right are its classes, move these folders into .*/images/train/",
    ),
    "a list beside its images": (
        lambda root: [(root / "labels.csv").touch(), remove(root / "train")],
        "has no folder train; if labels.csv lists its images, write root: .*/images/labels.csv",
    ),
    "test without labels": (
        lambda root: write_png(root / "test" / "0.png", coded_image(0, 0)),
        "test has no class folders, so its images have no labels; sort them into .*test/<class>/, or move test out",
    ),
    "val without labels": (
        lambda root: write_png(root / "val" / "0.png", coded_image(0, 0)),
        "val has no class folders, so its images have no labels; sort them into .*val/<class>/, or move val out",
    ),
    "val lacks a class": (
        lambda root: write_png(root / "val" / "left" / "0.png", coded_image(0, 0)),
        "train has the class 'right', which .*val lacks",
    ),
    "a link that leads out": (
        lambda root: (root / "train" / "left" / "more").symlink_to("/proc"),
        "a link in .*/images leads out of it: train/left/more to /proc; write follow_links: true .*",
    ),
    "links of files that lead out": (
        lambda root: [(root / "train" / "left" / f"{n}.png").symlink_to("/etc/passwd") for n in range(2)],
        "2 links in .*/images lead out of it: train/left/.*.png to /etc/passwd; write follow_links: true .*",
    ),
    "a class that is a link": (
        lambda root: (root / "train" / "etc").symlink_to("/etc"),
        "leads out of it: train/etc to /etc; ",
    ),
    "a split that is a link": (lambda root: (root / "val").symlink_to("/etc"), "leads out of it: val to /etc; "),
    "a folder that nobody may read": (
        lambda root: (root / "train" / "left").chmod(0),
        "cannot look into .*/images/train/left: Permission denied; make the folder readable",
    ),
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


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("photos/train", "photos"),
        ("photos/validation", "photos"),
        ("photos/train/left", "photos"),
        (".", "elsewhere"),
        ("elsewhere/train/birds", None),
    ],
)
def test_a_folder_a_level_off_names_the_one_that_is_meant(given, named, tmp_path):
    for name in ("left", "right"):
        for split in ("photos/train", "photos/validation", "elsewhere/train/birds"):
            write_png(tmp_path / split / name / "0.png", coded_image(0, 0))
    with pytest.raises(DataError) as caught:
        list_folder(tmp_path / given)
    advice = str(caught.value).partition(" has no folder train; ")[2]
    assert f"give {tmp_path / named}" in advice if named else "classes" in advice


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_with_the_remedy(images, settings, store, progress, fault):
    spoil, message = FAULTS[fault]
    if "nobody may read" in fault and os.geteuid() == 0:
        pytest.skip("who runs this test may read everything")
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


def own_validation(images, count=5):
    for label, name in enumerate(("left", "right")):
        for number in range(count):
            write_png(images / "val" / name / f"{number}.png", coded_image(label, 200 + 10 * label + number))


@pytest.mark.parametrize("with_test", [False, True])
def test_val_is_the_validation_split_and_nothing_else(images, settings, store, progress, with_test):
    own_validation(images)
    if with_test:
        for label, name in enumerate(("left", "right")):
            write_png(images / "test" / name / "0.png", coded_image(label, 300 + label))
    dataset = prepare(settings, store, progress)
    test_images, _ = open_test(CONFIG, settings, purpose=TestPurpose.CONFIRM)
    assert indices(dataset.validation_images) == [*range(200, 205), *range(210, 215)]
    assert dataset.validation_labels.tolist() == [0] * 5 + [1] * 5
    in_train, in_test = indices(dataset.train_images), indices(test_images)
    assert len(in_test) == (2 if with_test else 20)
    assert sorted([*in_train, *(in_test if not with_test else [])]) == list(range(80))
    assert dataset.own_validation
    assert progress.warnings == []
    assert any("validation_fraction is not used" in note for note in progress.notes)
    other = prepare(settings, store, progress, CONFIG.model_copy(update={"validation_fraction": 0.5}))
    assert (other.sha256, other.folder) == (dataset.sha256, dataset.folder)


def test_no_fold_of_teachers_sees_val(images, settings, store, progress):
    own_validation(images)
    dataset = prepare(settings, store, progress)
    assert len(assign_folds(dataset, 3)) == len(dataset.train_images) == 60
    assert not set(indices(dataset.train_images)) & set(indices(dataset.validation_images))


def test_a_study_from_before_val_was_read_is_refused_by_name(images, settings, store, progress):
    before = prepare(settings, store, progress)
    own_validation(images)
    now = prepare(settings, store, progress)
    pins = [
        AssetPins(dataset_sha256=d.sha256, teacher_sha256="t", own_validation=d.own_validation) for d in (before, now)
    ]
    check_pins("old", pins[1], pins[1])
    with pytest.raises(DataError, match=r"'old' was made when val was not read.*; move val elsewhere .* new name"):
        check_pins("old", *pins)
    (images / "val").rename(images.parent / "val")
    assert prepare(settings, store, progress).sha256 == before.sha256


def test_neighbours_of_train_are_named(images, settings, store, progress):
    write_png(images / "validation" / "left" / "0.png", coded_image(0, 0))
    (images / "README.txt").touch()
    (images / ".cache").mkdir()
    (remark,) = prepare(settings, store, progress).remarks
    assert (remark.about, remark.level) == ("folders", "warning")
    assert remark.found.endswith("README.txt, validation/")
    assert remark.advice == "rename validation to val, if it is that split"
    assert progress.warnings == [remark.text]


def test_a_file_beside_train_is_no_reason_to_warn(images, settings, store, progress):
    (images / "LICENSE").touch()
    (remark,) = prepare(settings, store, progress).remarks
    assert (remark.found.endswith("LICENSE"), remark.level, progress.warnings) == (True, "note", [])


def test_what_lies_there_since_a_data_set_was_made_is_told_with_it(images, settings, store, progress):
    prepare(settings, store, progress)
    (images / "extra").mkdir()
    prepare(settings, store, progress)
    assert len(progress.warnings) == 1


def test_what_is_no_file_is_left_out_and_named(images, settings, store, progress):
    left = images / "train" / "left"
    os.mkfifo(left / "pipe.png")
    os.mkfifo(left / "pipe")
    (left / "device.png").symlink_to("/dev/zero")
    server = socket.socket(socket.AF_UNIX)
    with server:
        monkey = os.getcwd()
        os.chdir(left)  # a socket's path may not be long
        server.bind("socket.png")
        os.chdir(monkey)
        dataset = prepare(settings, store, progress, CONFIG.model_copy(update={"follow_links": True}))
    assert [remark.about for remark in dataset.remarks] == ["unreadable", "unreadable"]
    told = " ".join(dataset.warnings)
    assert all(f"train/left/{name}" in told for name in ("pipe", "pipe.png (a pipe)", "device.png (a device)"))
    assert "socket.png (a socket)" in told
    assert len(dataset.train_images) + len(dataset.validation_images) == 60


def test_links_that_stay_in_the_folder_are_followed(images):
    (images / "store").mkdir()
    write_png(images / "store" / "a.png", coded_image(0, 1))
    (images / "train" / "left" / "a.png").symlink_to(Path("../../store/a.png"))
    (images.parent / "same").symlink_to(images)
    assert "train/left/a.png" in list_folder(images).files
    assert "train/left/a.png" in list_folder(images.parent / "same").files


def test_a_data_set_of_links_is_the_same_as_one_of_files(images, settings, store, progress):
    files = prepare(settings, store, progress)
    (images / "train").rename(images.parent / "kept")
    (images / "train").mkdir()
    for name in ("left", "right"):
        (images / "train" / name).symlink_to(images.parent / "kept" / name)
    follow = CONFIG.model_copy(update={"follow_links": True})
    assert prepare(settings, store, progress, follow).sha256 == files.sha256
    assert open_dataset(CONFIG, store).sha256 == files.sha256  # as a study asks that was made without the key


@pytest.mark.parametrize(
    "names", [("a%20b", "ça va"), (b"\xe9p\xe9e", b"bee"), ("z\x1b[31m", "two\nlines"), ("<b>", "😀")]
)
def test_classes_of_any_name_are_text(tmp_path, settings, store, progress, names):
    names = [os.fsdecode(name) for name in names]
    for label, name in enumerate(names):
        for number in range(40):
            write_png(tmp_path / "images" / "train" / name / f"{number}.png", coded_image(label, 40 * label + number))
    (tmp_path / "images" / "train" / names[0] / os.fsdecode(b"\xfc.txt")).touch()
    dataset = prepare(settings, store, progress)
    in_order = sorted(range(2), key=names.__getitem__)  # as torchvision's ImageFolder numbers them
    assert dataset.class_names == tuple(accept_name(names[label]) for label in in_order)
    for text in (*dataset.class_names, *dataset.warnings):
        assert text.encode().decode() == text
    assert all(label == in_order[0] for label in dataset.train_images[dataset.train_labels == 0][:, 2, 0, 0].tolist())


def test_one_name_in_two_spellings_is_one_class(images, settings, store, progress):
    composed, decomposed = "\u00e9", "e\u0301"
    for split, spellings in {"train": (composed, decomposed), "test": (decomposed,)}.items():
        for count, spelling in enumerate(spellings):
            for number in range(10):
                write_png(images / split / spelling / f"{count}-{number}.png", coded_image(1, 100 * count + number))
        for name in ("left", "right") if split == "test" else ():
            write_png(images / split / name / "0.png", coded_image(0, 300))
    dataset = prepare(settings, store, progress)
    assert dataset.class_names == (composed, "left", "right")  # as the first spelling is sorted
    assert sum((labels == 0).sum() for labels in (dataset.train_labels, dataset.validation_labels)) == 20
    remark, *copies = dataset.remarks  # of which there are some between the splits
    assert (remark.about, remark.found.endswith(f"train/{composed}")) == ("folders", True)
    assert [copy.about for copy in copies] == ["duplicates", "labels"]


def test_two_names_of_one_class_from_another_source_are_refused(settings, store, progress, monkeypatch):
    twins = Images(
        images=np.zeros((40, 3, 8, 8), np.uint8),
        labels=np.arange(40) % 2,
        n_train=40,
        class_names=("\u00e9", "e\u0301"),
    )
    source = Source(
        help="", root="unused", about_root="", find=lambda root, size: Found(own_test=False, read=lambda place: twins)
    )
    monkeypatch.setitem(SOURCES, "digits", source)
    with pytest.raises(DataError, match="two classes of digits have one name"):
        prepare(settings, store, progress, DatasetConfig(name="digits"))


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".jp2", ".tga", ".JPG", ".mpo", ".ico", ".qoi"])
def test_every_ending_that_pillow_reads_is_seen(images, suffix):
    (images / "train" / "left" / f"more{suffix}").touch()
    assert f"train/left/more{suffix}" in list_folder(images).files


def test_what_is_no_picture_is_not_taken_for_one():
    assert not image_suffixes() & {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".wmf", ".emf", ".fli", ".h5", ".grib"}


@pytest.mark.parametrize(("most", "bits"), [(1023, 10), (4095, 12), (16383, 14), (65535, None)])
def test_images_of_16_bits_tell_how_many_they_use(images, settings, store, progress, most, bits):
    path = images / "train" / "left" / "deep.png"
    values = np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(path)
    (remark,) = prepare(settings, store, progress).remarks
    assert (remark.about, remark.level) == ("depth", "note" if bits is None else "warning")
    assert f"at most {bits or 16} of them" in remark.found
    if bits is not None:
        assert f"such as {bits}" in remark.advice
        dataset = prepare(settings, store, progress, CONFIG.model_copy(update={"bits": bits}))
        assert [remark.level for remark in dataset.remarks] == ["note"]
        pixels = [p for p in (*dataset.train_images, *dataset.validation_images) if indices(p[None])[0] == 0]
        assert all(p.max() == 255 for p in pixels if p[0, 7, 7] == 255)


@pytest.mark.parametrize(("bits", "depth"), [(12, np.uint16), (10, np.uint8)])
def test_bits_that_do_not_fit_are_told(images, settings, store, progress, bits, depth):
    Image.fromarray(np.full((8, 8), np.iinfo(depth).max, depth)).save(images / "train" / "left" / "deep.png")
    (remark,) = prepare(settings, store, progress, CONFIG.model_copy(update={"bits": bits})).remarks
    assert (remark.about, remark.level) == ("depth", "warning")


def test_damaged_metadata_is_counted_and_the_images_are_there(images, settings, store, progress):
    for number in range(40):
        path = images / "train" / "left" / f"{number:03d}.png"
        Image.open(path).save(path, exif=b"garbage!")
    dataset = prepare(settings, store, progress)
    (remark,) = dataset.remarks
    assert (remark.about, remark.level) == ("metadata", "warning")
    assert remark.found.startswith("40 of 80 images have damaged metadata")
    assert len(dataset.train_images) + len(dataset.validation_images) == 60
