"""Data sets that people's own functions give, item by item: what is taken, and what is refused in one line."""

import builtins
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from igkd_hpo.assets.dataset import find_images, prepare_dataset
from igkd_hpo.assets.shown import prepare_images
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.errors import DataError, UsageError
from igkd_hpo.sources.reading import items

from .conftest import coded_image, make_study

MODULE = """
import builtins
def give(root, image_size):
    return builtins.given_by_the_test(root, image_size)
"""
CONFIG = DatasetConfig(name="own_data:give", validation_fraction=0.25, test_fraction=0.25)


@pytest.fixture
def give(tmp_path, monkeypatch, settings, store, progress):
    """A call that prepares a data set whose function returns, or raises, what it is given; with keys of the section."""
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    trusting = replace(settings, allow_import=frozenset({"own_data"}))

    def prepare(returned, **keys):
        prepare.called = []

        def answer(*given):
            prepare.called.append(given)
            if isinstance(returned, Exception):
                raise returned
            return returned

        monkeypatch.setattr(builtins, "given_by_the_test", answer, raising=False)
        return prepare_dataset(CONFIG.model_copy(update=keys), trusting, store, progress)

    prepare.settings = trusting
    yield prepare
    sys.modules.pop("own_data", None)


def pictures(count, start=0, size=8, classes=2):
    return [
        (Image.fromarray(coded_image((start + number) % classes, start + number, size)), (start + number) % classes)
        for number in range(count)
    ]


def indices(images):
    return (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()


class Named(list):
    """A data set with the names of its classes."""

    def __init__(self, content, classes):
        super().__init__(content)
        self.classes = classes


def test_code_is_not_run_unless_its_module_is_trusted(give, settings, store, progress):
    with pytest.raises(UsageError, match="--allow-import own_data"):
        prepare_dataset(CONFIG, settings, store, progress)
    assert "own_data" not in sys.modules


def test_the_splits_are_the_functions_own(give, settings):
    dataset = give({"training": pictures(20), "validation": pictures(6, 100), "test": pictures(4, 200)})
    test_images, test_labels = open_test(CONFIG, settings, purpose=TestPurpose.BENCHMARK)
    assert indices(dataset.train_images) == list(range(20))
    assert indices(dataset.validation_images) == list(range(100, 106))
    assert indices(test_images) == list(range(200, 204))
    assert (dataset.train_labels.tolist(), test_labels.tolist()) == ([0, 1] * 10, [0, 1] * 2)
    assert dataset.own_validation
    assert dataset.class_names == ("0", "1")


def test_one_split_is_divided_and_an_empty_one_is_none(give, settings):
    dataset = give({"train": pictures(40), "val": [], "test": []})
    test_images, _ = open_test(CONFIG, settings, purpose=TestPurpose.BENCHMARK)
    assert (len(dataset.train_images), len(dataset.validation_images), len(test_images)) == (22, 8, 10)
    assert not dataset.own_validation


def test_the_function_is_told_the_root_and_the_size(give, tmp_path):
    give({"train": pictures(40)}, root="there", image_size=8)
    assert give.called[0] == (tmp_path / "there", 8)


@pytest.mark.parametrize(
    "make",
    [
        Image.fromarray,
        lambda pixels: pixels,
        lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
        lambda pixels: np.dstack([pixels, np.full((8, 8), 255, np.uint8)]),
    ],
    ids=["Pillow", "array", "tensor", "opaque"],
)
def test_pictures_arrays_and_tensors_are_the_same_pixels(give, make):
    dataset = give({"train": [(make(coded_image(n % 2, n)), torch.tensor(n % 2)) for n in range(40)]})
    first = dataset.train_images[0].permute(1, 2, 0).numpy()
    assert (first == coded_image(indices(dataset.train_images)[0] % 2, indices(dataset.train_images)[0])).all()


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
@pytest.mark.parametrize("tensor", [False, True])
def test_grey_becomes_three_channels(give, shape, tensor):
    grey = np.arange(64, dtype=np.uint8).reshape(shape)
    image = torch.from_numpy(grey.reshape(1, 8, 8) if len(shape) == 3 else grey) if tensor else grey
    dataset = give({"train": [(image, n % 2) for n in range(40)]})
    assert (dataset.train_images[0].numpy() == grey.reshape(8, 8)).all()


@pytest.mark.parametrize(
    ("image", "size"),
    [(torch.zeros(3, 8, 4, dtype=torch.uint8), (8, 4)), (np.zeros((3, 8, 4), np.uint8), (3, 8))],
    ids=["tensor", "array"],
)
def test_channels_are_first_in_tensors_and_last_in_arrays(give, image, size):
    assert give({"train": [(image, n % 2) for n in range(40)]}).image_size == size


def test_pictures_follow_the_rules_of_files(give, tmp_path):
    deep = Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8))
    turned = Image.new("RGB", (4, 8), "red")
    turned.paste("blue", (0, 4, 4, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    glass = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    kinds = [deep, Image.open(tmp_path / "turned.png"), tmp_path / "turned.png", glass]
    dataset = give({"train": [(kinds[n % 4], n % 4) for n in range(80)]}, image_size=8)
    of = {int(label): dataset.train_images[row] for row, label in enumerate(dataset.train_labels)}
    assert (int(of[0].min()), int(of[0].max())) == (0, 255)
    assert of[1][:, 0, 0].tolist() == of[2][:, 0, 0].tolist() == [0, 0, 255]
    assert (of[3] == 255).all()


@pytest.mark.parametrize("kind", ["Pillow", "path", "bytes", "array"])
@pytest.mark.parametrize(("fit", "corners"), [("crop", {0}), ("pad", {85}), ("squeeze", {255, 0})])
def test_an_image_that_is_no_square_fits_as_it_is_told(give, tmp_path, kind, fit, corners):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, :8] = 255
    file = tmp_path / "wide.png"
    Image.fromarray(wide).save(file)
    image = {"Pillow": Image.fromarray(wide), "path": file, "bytes": file.read_bytes(), "array": wide}[kind]
    dataset = give({"train": [(image, n % 2) for n in range(40)]}, image_size=8, fit=fit)
    assert {int(dataset.train_images[0, 0, 0, column]) for column in (0, 7)} == corners


def test_a_teachers_own_size_is_read_from_the_items(give, store, progress):
    give({"train": pictures(40, size=16)}, image_size=8)
    study = make_study(
        dataset={"name": "own_data:give", "root": None, "image_size": 8},
        teacher={"input_size": 16},
    )
    images = prepare_images(study, give.settings, store, progress)
    assert images.image_size == (8, 8)
    assert indices(images.shown.train_images) == sorted(indices(images.shown.train_images))
    assert images.shown.image_size == (16, 16)


def test_labels_without_names_are_numbered_in_their_order(give):
    dataset = give({"train": [(image, 7 + 10**12 * label) for image, label in pictures(40)]})
    assert dataset.class_names == ("7", str(10**12 + 7))
    assert set(dataset.train_labels.tolist()) == {0, 1}


def test_names_of_classes_are_taken(give):
    assert give({"train": Named(pictures(40), ["left", "right"])}).class_names == ("left", "right")


class Failing(list):
    def __getitem__(self, number):
        if number == 3:
            raise SystemExit("enough")
        return super().__getitem__(number)


class Endless:
    def __getitem__(self, number):
        return pictures(1)[0]


GOOD = pictures(20)
PIXELS = coded_image(0, 0)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (GOOD, "returned list"),
        (None, "returned NoneType"),
        ({"train": []}, "no images to train on"),
        ({"test": GOOD}, "no images to train on"),
        ({"train": GOOD, "tset": GOOD}, "'tset' .did you mean test"),
        ({"train": GOOD, "val": GOOD, "valid": GOOD}, "'val' and 'valid'"),
        ({"train": Endless()}, "train is Endless.*__len__"),
        ({"train": iter(GOOD)}, "train is list_iterator"),
        ({"train": Failing(GOOD)}, "item 3 of train raises SystemExit: enough"),
        ({"train": GOOD, "val": [(PIXELS, 0), 7]}, "item 1 of val is int"),
        ({"train": [(PIXELS, 0, 1)] * 9}, "item 0 of train is 3 things"),
        ({"train": [("a.png", 0)] * 9}, "item 0 of train has a str for an image"),
        ({"train": [(PIXELS / 255, 0)] * 9}, "image of float64"),
        ({"train": [(torch.rand(3, 8, 8), 0)] * 9}, "image of float32"),
        ({"train": [(PIXELS[..., :2], 0)] * 9}, r"shape \(8, 8, 2\)"),
        ({"train": [(PIXELS[None], 0)] * 9}, r"shape \(1, 8, 8, 3\)"),
        ({"train": [(PIXELS[:0], 0)] * 9}, r"shape \(0, 8, 3\)"),
        ({"train": [(PIXELS, 0), (PIXELS[:7], 1)]}, "item 1 of train is 8x7.*image_size"),
        ({"train": [(PIXELS, -1)] * 9}, "the label -1"),
        ({"train": [(PIXELS, 2**63)] * 9}, f"the label {2**63}"),
        ({"train": [(PIXELS, 0.0)] * 9}, "a label of type float"),
        ({"train": [(PIXELS, None)] * 9}, "a label None"),
        ({"train": [(PIXELS, torch.tensor([0, 1]))] * 9}, "a label of type Tensor"),
        ({"train": Named([(PIXELS, 2)] * 9, ["a", "b"])}, "label 2, and there are 2 classes"),
        ({"train": Named(GOOD, "ab")}, "classes of train is no list"),
        ({"train": Named(GOOD, ["a", "b"]), "val": Named(GOOD, ["b", "a"])}, "val has other classes than train"),
        ({"train": [(PIXELS, 1)] * 9}, "only the class '1'"),
        ({"train": GOOD, "test": [(PIXELS, 5)]}, "the class 5"),
        ({"train": [(Image.new("F", (8, 8)), 0)] * 9}, "mode F"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_told_in_one_line(give, returned, told):
    with pytest.raises(DataError, match=f"^[^\n]*own_data:give[^\n]*{told}[^\n]*$"):
        give(returned)


def test_what_the_function_raises_is_told(give):
    with pytest.raises(UsageError, match="own_data:give cannot be used: ZeroDivisionError: by hand"):
        give(ZeroDivisionError("by hand"))


def test_reading_goes_on_after_a_kill(give, monkeypatch):
    monkeypatch.setattr(items, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(items, "_AT_ONCE", 16)
    fetched = []

    class Counted(list):
        def __getitem__(self, number):
            fetched.append(number)
            if len(fetched) == 51:
                raise KeyboardInterrupt
            return super().__getitem__(number)

    content = pictures(80)
    with pytest.raises(KeyboardInterrupt):
        give({"train": Counted(content)}, image_size=8)
    before = len(fetched)
    dataset = give({"train": Counted(content)}, image_size=8)
    assert fetched[before] == 48
    assert indices(dataset.train_images) == sorted(indices(dataset.train_images))
    assert dataset.train_labels.tolist() == [index % 2 for index in indices(dataset.train_images)]
    assert {path.name for path in dataset.folder.glob("*.npy")} == {
        "train_images.npy", "train_labels.npy", "validation_images.npy", "validation_labels.npy", "train_digests.npy",
    }  # fmt: skip


def test_other_code_or_another_number_makes_another_data_set(give, tmp_path):
    def key():
        return find_images(CONFIG, give.settings)[1]["listing"]

    give({"train": pictures(40)})
    first = key()
    (tmp_path / "own_data.py").write_text(f"{MODULE}# a comment\n")
    assert (again := key()) != first
    give({"train": pictures(42)})
    assert key() != again
