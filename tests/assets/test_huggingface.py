"""Data sets in the layouts of Hugging Face: folders of images, Parquet files, and what save_to_disk writes."""

import io
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from igkd_hpo.assets.dataset import find_images, prepare_dataset
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.errors import DataError
from igkd_hpo.sources import find_source

from .conftest import coded_image, write_png


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "me" / "animals"


def of(**keys):
    keys = {"validation_fraction": 0.25, "test_fraction": 0.25, **keys}
    return DatasetConfig(name="huggingface/me/animals", **keys)


def coded_file(label, number):
    file = io.BytesIO()
    Image.fromarray(coded_image(label, number)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def split_of(count, start=0, *, names=("cat", "dog"), label=lambda number: number % 2, **more):
    columns = {
        "picture": [coded_file(number % 2, start + number) for number in range(count)],
        "kind": [label(number) for number in range(count)],
        "text": ["a"] * count,
    }
    features = {
        "picture": datasets.Image(),
        "kind": datasets.ClassLabel(names=list(names)),
        "text": datasets.Value("string"),
    }
    for name, (feature, values) in more.items():
        features[name], columns[name] = feature, values
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(folder, **splits):
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def indices(images):
    return (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()


def check(dataset, settings, config, *, train, validation, test):
    test_images, test_labels = open_test(config, settings, purpose=TestPurpose.BENCHMARK)
    assert indices(dataset.train_images) == train
    assert indices(dataset.validation_images) == validation
    assert indices(test_images) == test
    assert test_labels.tolist() == test_images[:, 2, 0, 0].tolist()
    assert dataset.train_labels.tolist() == dataset.train_images[:, 2, 0, 0].tolist()
    assert dataset.class_names == ("cat", "dog")


def test_a_folder_of_images_with_splits(folder, settings, store, progress):
    for split, start in (("train", 0), ("test", 100)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(10):
                write_png(folder / split / name / f"{number}.png", coded_image(label, start + 10 * label + number))
    dataset = prepare_dataset(of(), settings, store, progress)
    assert (len(dataset.train_images), len(dataset.validation_images)) == (15, 5)
    train, validation = indices(dataset.train_images), indices(dataset.validation_images)
    assert sorted(train + validation) == list(range(20))
    check(dataset, settings, of(), train=train, validation=validation, test=list(range(100, 120)))


def test_parquet_files_with_three_splits(folder, settings, store, progress):
    (folder / "data").mkdir(parents=True)
    for split, start in (("train", 0), ("validation", 100), ("test", 200)):
        split_of(10, start).to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    dataset = prepare_dataset(of(), settings, store, progress)
    numbers = [list(range(start, start + 10)) for start in (0, 100, 200)]
    check(dataset, settings, of(), train=numbers[0], validation=numbers[1], test=numbers[2])
    assert dataset.own_validation


def test_what_save_to_disk_writes(folder, settings, store, progress):
    save(folder, train=split_of(20), dev=split_of(8, 100), extra=split_of(3, 50))
    dataset = prepare_dataset(of(), settings, store, progress)
    assert indices(dataset.validation_images) == list(range(100, 108))
    assert [remark.text for remark in dataset.remarks] == ["huggingface/me/animals has also, and is not read: extra"]


def test_one_split_that_save_to_disk_wrote_is_divided(folder, settings, store, progress):
    split_of(40).save_to_disk(str(folder))
    dataset = prepare_dataset(of(), settings, store, progress)
    assert (len(dataset.train_images), len(dataset.validation_images)) == (22, 8)


def test_changed_files_make_another_data_set(folder, settings):
    save(folder, train=split_of(20))
    first = find_images(of(), settings)
    assert find_images(of(), settings)[1] == first[1]
    save(folder, train=split_of(22))
    assert find_images(of(), settings)[1] != first[1]


def test_columns_are_told_where_there_are_several(folder, settings, store, progress):
    more = {
        "mask": (datasets.Image(), [coded_file(0, 999)] * 40),
        "breed": (datasets.ClassLabel(names=["a", "b", "c"]), [number % 3 for number in range(40)]),
    }
    save(folder, train=split_of(40, **more))
    with pytest.raises(DataError, match=r"several columns of images: picture, mask; name one as dataset.image_column"):
        prepare_dataset(of(), settings, store, progress)
    with pytest.raises(DataError, match=r"no column 'pictur' of images .did you mean picture.*dataset.image_column"):
        prepare_dataset(of(image_column="pictur", label_column="breed"), settings, store, progress)
    told = of(image_column="picture", label_column="breed")
    dataset = prepare_dataset(told, settings, store, progress)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.train_labels.tolist() == [index % 3 for index in indices(dataset.train_images)]


def test_a_damaged_image_is_left_out_and_named(folder, settings, store, progress):
    split = split_of(40)
    rows = [{**row, "picture": {"bytes": b"none", "path": None}} if number == 7 else row for number, row in enumerate(
        split.cast_column("picture", datasets.Image(decode=False)))]  # fmt: skip
    save(folder, train=datasets.Dataset.from_list(rows, features=split.features))
    dataset = prepare_dataset(of(), settings, store, progress)
    assert "1 of 40 images cannot be read: 7 of train (cannot identify image file)" in dataset.warnings[0]
    assert 7 not in indices(dataset.train_images)


def test_a_path_that_leads_out_of_the_data_set_is_not_read(tmp_path, folder, settings, store, progress):
    secret = tmp_path / "secret.png"
    write_png(secret, coded_image(0, 0))
    split = split_of(40)
    rows = [{**row, "picture": {"bytes": None, "path": str(secret)}} for row in split]
    (folder / "data").mkdir(parents=True)
    kept = datasets.Dataset.from_list(
        [{**row, "kind": number % 2} for number, row in enumerate(rows)], features=split.features
    )
    import pyarrow.parquet

    pyarrow.parquet.write_table(kept.data.table, folder / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=f"item 0 of train .*outside of the data set: {secret}"):
        prepare_dataset(of(), settings, store, progress)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: {"train": split_of(9).remove_columns("kind")}, r"no column of class labels .ClassLabel., but picture"),
        (lambda: {"train": split_of(9).remove_columns("picture")}, "no column of images .Image., but kind, text"),
        (lambda: {"unsupervised": split_of(9)}, "no split train .*unsupervised"),
        (lambda: {"train": split_of(9), "dev": split_of(2), "validation": split_of(2)}, "'dev' and 'validation'"),
        (lambda: {"train": split_of(9), "test": split_of(4, label=lambda _: -1)}, "item 0 of test has the label -1"),
        (lambda: {"train": split_of(9), "test": split_of(4, label=lambda _: None)}, "item 0 of test has a label None"),
        (lambda: {"train": split_of(9), "test": split_of(4, names=("dog", "cat"))}, "test has other classes in 'kind'"),
        (lambda: {"train": split_of(9, names=("cat",), label=lambda _: 0)}, "only the class 'cat'"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(folder, settings, store, progress, make, told):
    save(folder, **make())
    with pytest.raises(DataError, match=f"^[^\n]*{told}[^\n]*$"):
        prepare_dataset(of(), settings, store, progress)


def test_without_a_network_it_is_told_in_one_line_and_nothing_is_left(tmp_path, settings, store, progress, folder):
    with pytest.raises(DataError, match=f"^huggingface/me/animals cannot be loaded, [^\n]*put it into {folder}[^\n]*$"):
        prepare_dataset(of(), settings, store, progress)
    assert not folder.exists()


def test_several_configurations_are_told(folder, settings, store, progress):
    for name in ("a", "b"):
        write_png(folder / name / "cat" / "0.png", coded_image(0, 0))
    configurations = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("a", "b"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n")
    with pytest.raises(DataError, match=r"huggingface/me/animals has several configurations; .*module:function"):
        prepare_dataset(of(), settings, store, progress)


def test_a_damaged_folder_is_told_in_one_line(folder, settings, store, progress):
    save(folder, train=split_of(9))
    for file in (folder / "train").glob("*.arrow"):
        file.write_bytes(b"none")
    with pytest.raises(DataError, match=r"^huggingface/me/animals cannot be loaded, [^\n]*mend what is there[^\n]*$"):
        prepare_dataset(of(), settings, store, progress)


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch, settings, store, progress):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'igkd-hpo\[huggingface\]'"):
        prepare_dataset(of(), settings, store, progress)


@pytest.mark.parametrize("rest", ["", "/", "/../x", "/a/b/c", "/a b"])
def test_other_forms_of_names_are_refused(rest):
    with pytest.raises(ValueError, match=r"is not of the form huggingface/OWNER/NAME or huggingface/NAME"):
        find_source(f"huggingface{rest}")


def test_a_name_without_an_owner_is_one(tmp_path, settings, store, progress):
    save(tmp_path / "elsewhere" / "animals", train=split_of(40))
    config = of(root="elsewhere").model_copy(update={"name": "huggingface/animals"})
    assert len(prepare_dataset(config, settings, store, progress).train_images) == 22


def test_wide_pictures_are_resized(folder, settings, store, progress):
    save(folder, train=split_of(40))
    dataset = prepare_dataset(of(image_size=16), settings, store, progress)
    assert dataset.image_size == (16, 16)
    assert np.ptp(dataset.train_images.numpy()) > 0
