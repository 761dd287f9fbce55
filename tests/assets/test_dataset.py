"""The built-in data sets, and the one door to the test split."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
import torchvision.datasets
from torch import Tensor

from igkd_hpo.assets.dataset import open_dataset, prepare_dataset, row_digests
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.study import DatasetConfig
from igkd_hpo.errors import AssetError, AssetMissing, DataError

DIGITS = DatasetConfig(name="digits", validation_fraction=0.2)


def test_digits_are_all_there_in_their_order_as_bytes(settings, store, progress):
    from sklearn.datasets import load_digits

    dataset = prepare_dataset(DIGITS, settings, store, progress)
    test_images, test_labels = open_test(DIGITS, settings, purpose=TestPurpose.CONFIRM)
    assert [len(x) for x in (dataset.train_images, dataset.validation_images, test_images)] == [1149, 288, 360]
    assert dataset.class_names == tuple("0123456789")
    original = load_digits()
    # Rows keep their order, so each split is a subsequence of the original.
    wanted = [image.tobytes() for image in np.round(original.images * 255 / 16).astype(np.uint8)]
    for images, labels in ((dataset.train_images, dataset.train_labels), (test_images, test_labels)):
        assert (images[:, 0] == images[:, 1]).all()
        assert (images[:, 0] == images[:, 2]).all()
        place = 0
        for image, label in zip(images[:, 0].numpy(), labels.tolist(), strict=True):
            place = wanted.index(image.tobytes(), place)
            assert original.target[place] == label
            place += 1


def test_mean_and_deviation_are_those_of_the_training_pixels(settings, store, progress):
    dataset = prepare_dataset(DIGITS, settings, store, progress)
    pixels = dataset.train_images.double() / 255
    assert dataset.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_opening_makes_nothing_and_gives_the_same(settings, store, progress):
    with pytest.raises(AssetMissing, match="prepare"):
        open_dataset(DIGITS, store)
    assert not store.root.exists()
    made = prepare_dataset(DIGITS, settings, store, progress)
    opened = open_dataset(DIGITS, store)
    for name, value in vars(made).items():
        other = getattr(opened, name)
        assert torch.equal(value, other) if isinstance(value, Tensor) else np.array_equal(value, other)


def test_row_digests_tell_images_and_labels_apart():
    images = np.arange(4 * 12, dtype=np.uint8).reshape(4, 3, 2, 2)
    labels = np.array([0, 1, 0, 1])
    digests = row_digests(images, labels)
    assert len(set(digests.tolist())) == 4
    assert (row_digests(images[::-1], labels[::-1]) == digests[::-1]).all()
    assert (row_digests(images, 1 - labels) != digests).all()


def test_a_data_set_whose_test_split_was_deleted_is_refused(settings, store, progress):
    prepare_dataset(DIGITS, settings, store, progress)
    (folder,) = store.root.glob("test-split-*")
    folder.rename(store.root / "gone")
    with pytest.raises(AssetError, match=r"test split .*/dataset-\w+ "):
        prepare_dataset(DIGITS, settings, store, progress)


def test_every_look_at_the_test_split_leaves_a_line(settings, store, progress):
    dataset = prepare_dataset(DIGITS, settings, store, progress)
    assert not settings.paths.test_split_log.exists()
    for purpose in (TestPurpose.CONFIRM, TestPurpose.TRAIN_TEST):
        open_test(DIGITS, settings, purpose=purpose)
    lines = [json.loads(line) for line in settings.paths.test_split_log.read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["confirm", "train --test"]
    assert {line["dataset_sha256"] for line in lines} == {dataset.sha256}


def test_an_unlogged_look_is_refused(settings, store, progress):
    prepare_dataset(DIGITS, settings, store, progress)
    settings.paths.logs.write_text("in the way")
    with pytest.raises(AssetError, match=r"logs/test-split\.log"):
        open_test(DIGITS, settings, purpose=TestPurpose.CONFIRM)


def test_the_test_images_are_in_no_file_of_the_data_set(settings, store, progress):
    dataset = prepare_dataset(DIGITS, settings, store, progress)
    test_images, _ = open_test(DIGITS, settings, purpose=TestPurpose.BENCHMARK)
    known = {image.numpy().tobytes() for image in (*dataset.train_images, *dataset.validation_images)}
    assert not any(image.numpy().tobytes() in known for image in test_images)
    assert sum(path.stat().st_size for path in dataset.folder.glob("*images.npy")) < (1797 - 359) * 192 + 1000


def write_cifar(root, monkeypatch, *, per_batch=20):
    """CIFAR-10 in its authors' own format, small; its checksums take the place of theirs."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    sums, pixels, labels = {}, [], []
    for name in names:
        data = rng.integers(0, 255, (per_batch, 3072), dtype=np.uint8)
        classes = [number % 10 for number in range(per_batch)]
        content = pickle.dumps({"data": data, "labels": classes}, protocol=2)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
        pixels.append(data)
        labels += classes
    meta = pickle.dumps({"label_names": [f"kind {number}" for number in range(10)]}, protocol=2)
    (folder / "batches.meta").write_bytes(meta)
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": hashlib.md5(meta).hexdigest()})
    return np.concatenate(pixels).reshape(-1, 3, 32, 32), np.array(labels)


def test_cifar10_is_read_from_its_authors_files(settings, store, progress, tmp_path, monkeypatch):
    pixels, labels = write_cifar(tmp_path / "there", monkeypatch)
    config = DatasetConfig(name="cifar10", root="there", validation_fraction=0.1)
    dataset = prepare_dataset(config, settings, store, progress)
    test_images, test_labels = open_test(config, settings, purpose=TestPurpose.CONFIRM)
    assert (test_images.numpy() == pixels[100:]).all()
    assert (test_labels.numpy() == labels[100:]).all()
    assert len(dataset.train_images) == 90
    assert np.bincount(dataset.validation_labels.numpy()).tolist() == [1] * 10
    rows = [next(row for row in range(100) if (pixels[row] == image).all()) for image in dataset.train_images.numpy()]
    assert rows == sorted(rows)
    assert (dataset.train_labels.numpy() == labels[rows]).all()
    assert dataset.class_names[3] == "kind 3"


def test_a_download_that_fails_says_where_to_put_the_files(settings, store, progress, monkeypatch):
    def no_network(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", no_network)
    with pytest.raises(DataError, match=r"Name or service .*https://.*data/cifar-100.*dataset\.root") as e:
        prepare_dataset(DatasetConfig(name="cifar100"), settings, store, progress)
    assert "\n" not in str(e.value)
    assert progress.notes[0].startswith("downloading cifar100 to ")
