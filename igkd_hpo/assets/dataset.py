"""The data set of a study: images in a fixed order, split once, with the hash that all assets made from it name."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.splits import split_rows
from igkd_hpo.assets.store import Asset, AssetStore, Draft, Json, content_hash
from igkd_hpo.config import study as config
from igkd_hpo.errors import AssetError, AssetMissing
from igkd_hpo.settings import Settings
from igkd_hpo.sources import SOURCES, Images

_SCHEMA = 1  # raise it when the same images and settings would give another data set


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The training and validation images; row i of every training array belongs to training image i.

    Args:
        train_images: uint8 (N, 3, H, W).
        train_labels: int64 (N,), indices into class_names.
        validation_images: uint8 (M, 3, H, W).
        validation_labels: int64 (M,).
        class_names: in the order of the labels.
        mean: of the training pixels in [0, 1], one number per colour.
        std: likewise; 1 where a colour never varies.
        sha256: of the content: images, labels, order, split and class names; the test split's included.
        train_digests: uint64 (N,), see `row_digests`.
        warnings: of the source that was read.
        folder: of the asset.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str
    train_digests: NDArray[np.uint64]
    warnings: tuple[str, ...]
    folder: Path

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return int(self.train_images.shape[2]), int(self.train_images.shape[3])

    def check_rows(self, asset: Asset) -> Asset:
        """Return an asset whose `digests` are those of the training images, in their order. Raises AssetError."""
        if not np.array_equal(asset.array("digests"), self.train_digests):
            raise AssetError(
                f"the rows of {asset.folder} do not belong to the training images of {self.folder}; "
                "delete the first folder and run again"
            )
        return asset


def row_digests(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash each image with its label to 8 bytes (BLAKE2b), (N,): equal arrays have their rows in the same order."""
    digests = (
        hashlib.blake2b(image.tobytes() + label.tobytes(), digest_size=8).digest()
        for image, label in zip(images, labels, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def prepare_dataset(
    dataset: config.DatasetConfig, settings: Settings, store: AssetStore, progress: Progress
) -> Dataset:
    """Return the data set, made if it is missing; looks at the images, so that changed ones make a new data set.

    Raises:
        DataError: the images cannot be used; the message says which and what to do.
        AssetError: the asset is damaged or cannot be written.
    """
    root = settings.data_path(dataset.root if dataset.root is not None else "data")  # downloads go there
    listing = SOURCES[dataset.name].find(root, dataset.image_size)
    inputs: dict[str, Any] = {"schema": _SCHEMA, **dataset.model_dump(mode="json", exclude={"root"})}
    if listing.facts is not None:
        inputs["listing"] = content_hash(listing.facts)
    if listing.own_test:
        del inputs["test_fraction"]
    with store.build("dataset", inputs, progress) as draft:
        if draft.finished is None:
            source = listing.read(_Workplace(store, draft, progress))
            asset, test = _make(source, dataset, inputs, store=store, draft=draft, progress=progress)
        else:
            asset = draft.finished
            try:
                test = store.open("test-split", inputs)
            except AssetMissing:
                raise AssetError(
                    f"the test split of {asset.folder} is gone; delete that folder and run again"
                ) from None
    request = dataset.model_dump(mode="json")
    store.remember("dataset", request, asset)
    store.remember("test-split", request, test)
    return _from_asset(asset)


def open_dataset(dataset: config.DatasetConfig, store: AssetStore) -> Dataset:
    """Open the data set as it was last prepared, without its source. Raises AssetMissing, AssetError."""
    return _from_asset(store.recall("dataset", dataset.model_dump(mode="json")))


def _from_asset(asset: Asset) -> Dataset:
    arrays = ("train_images", "train_labels", "validation_images", "validation_labels")
    return Dataset(
        **{name: torch.from_numpy(asset.array(name)) for name in arrays},
        class_names=tuple(json.loads(asset.read("classes.json"))),
        mean=tuple(asset.facts["mean"]),
        std=tuple(asset.facts["std"]),
        sha256=asset.sha256,
        train_digests=asset.array("train_digests"),
        warnings=tuple(asset.facts["warnings"]),
        folder=asset.folder,
    )


class _Workplace:
    """The `Workplace` of a source: the draft that its images go to, a lock, and progress."""

    def __init__(self, store: AssetStore, draft: Draft, progress: Progress) -> None:
        self.table = draft.table
        self.lock = partial(store.lock, progress=progress)
        self.task = progress.task
        self.note = progress.note


def _make(
    source: Images, dataset: config.DatasetConfig, inputs: Json, *, store: AssetStore, draft: Draft, progress: Progress
) -> tuple[Asset, Asset]:
    split = split_rows(source, dataset)
    # The test split is finished first: whoever finds the data set finds it too, killed makers included.
    with store.build("test-split", inputs, progress) as test_draft:
        test = test_draft.finished
        if test is None:
            test_draft.write_rows("images", source.images, split.test)
            test_draft.write_array("labels", source.labels[split.test])
            test = test_draft.commit({"images": len(split.test)})
    for name, rows in (("train", split.train), ("validation", split.validation)):
        draft.write_rows(f"{name}_images", source.images, rows)
        draft.write_array(f"{name}_labels", source.labels[rows])
    train = np.load(draft.folder / "train_images.npy", mmap_mode="r")
    draft.write_array("train_digests", row_digests(train, source.labels[split.train]))
    draft.write("classes.json", json.dumps(source.class_names).encode())
    draft.write("test_split.json", json.dumps({"sha256": test.sha256}).encode())  # part of the data set's identity
    mean, std = _mean_and_std(train)
    facts = {
        "mean": mean,
        "std": std,
        "warnings": source.warnings,
        "images": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
    }
    for warning in source.warnings:
        progress.warn(warning)
    return draft.commit(facts, drop=("decoded.npy", "readable.npy")), test


def _mean_and_std(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Measure each colour, in [0, 1] pixels; from counts of the 256 values, hence exact and without a float copy."""
    means, deviations = [], []
    values = np.arange(256) / 255
    for channel in range(3):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(images), 1024):
            counts += np.bincount(images[start : start + 1024, channel].ravel(), minlength=256)
        mean = float((counts * values).sum() / counts.sum())
        variance = float((counts * (values - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        deviations.append(variance**0.5 or 1.0)  # a colour that never varies has nothing to scale
    return means, deviations
