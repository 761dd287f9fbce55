"""The data set of a study: images in a fixed order, split once, with the hash that all assets made from it name."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igkd_hpo.assets.copies import digest_images, find_leaks, find_torn
from igkd_hpo.assets.image_store import open_stored, write_images
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.splits import Split, split_rows
from igkd_hpo.assets.store import Asset, AssetStore, Draft, Json, Table, content_hash
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.distillation.images import Images
from igkd_hpo.errors import AssetError, AssetMissing, DataError
from igkd_hpo.image_folder import name_some
from igkd_hpo.names import accept_name
from igkd_hpo.settings import Settings
from igkd_hpo.sources import Found, Remark, find_source
from igkd_hpo.sources import Images as SourceImages

_CHUNK_BYTES = 1 << 24  # of pixels that are looked at together
# Room on the disk, in decoded data sets: as they are read, and once more in their splits; JPEGs take a half at most.
_ROOM = {"arrays": 2.0, "jpeg": 1.5}
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
        own_validation: whether the source brought the validation split, rather than a share of the training images.
        remarks: of the source, for people.
        folder: of the asset.
        shown_to_teacher: the same images, row by row, at the teacher's own size; None where it sees these.
    """

    train_images: Images
    train_labels: Tensor
    validation_images: Images
    validation_labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str
    train_digests: NDArray[np.uint64]
    own_validation: bool
    remarks: tuple[Remark, ...]
    folder: Path
    shown_to_teacher: "Dataset | None" = None

    @property
    def shown(self) -> "Dataset":
        """The images as the teacher sees them: these, or the same ones at its own size."""
        return self.shown_to_teacher or self

    @property
    def shown_sha256(self) -> str | None:
        """Hash of the images at the teacher's own size; None where it sees these."""
        return None if self.shown_to_teacher is None else self.shown_to_teacher.sha256

    @property
    def digests(self) -> Tensor:
        """The training images' digests as int64 (N,), which torch can carry."""
        return torch.from_numpy(self.train_digests.view(np.int64))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return int(self.train_images.shape[2]), int(self.train_images.shape[3])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the remarks that ask for attention, one line each."""
        return tuple(remark.text for remark in self.remarks if remark.level != "note")

    @property
    def more_validation(self) -> str:
        """Say what to do for more validation images."""
        return "add images to val" if self.own_validation else "raise dataset.validation_fraction or add images"

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


def prepare_dataset(dataset: DatasetConfig, settings: Settings, store: AssetStore, progress: Progress) -> Dataset:
    """Return the data set, made if it is missing; looks at the images, so that changed ones make a new data set.

    Raises:
        DataError: the images cannot be used; the message says which and what to do.
        AssetError: the asset is damaged or cannot be written.
    """
    listing, inputs = find_images(dataset, settings)
    with store.build("dataset", inputs, progress) as draft:
        if draft.finished is None:
            source = listing.read(_Workplace(store, draft, progress, room=_ROOM[dataset.store]))
            asset, test = _make(source, listing, dataset, inputs, store=store, draft=draft, progress=progress)
        else:
            asset = draft.finished
            try:
                test = store.open("test-split", inputs)
            except AssetMissing:
                raise AssetError(
                    f"the test split of {asset.folder} is gone; delete that folder and run again"
                ) from None
    store.remember("dataset", dataset_request(dataset), asset)
    store.remember("test-split", dataset_request(dataset), test)
    made = _from_asset(asset)
    remarks = (*listing.remarks, *_remarks(asset.facts.get("read", ())))
    for remark in remarks:  # all of a new data set; else what lies there only since it was made
        if draft.finished is None or remark not in made.remarks:
            (progress.note if remark.level == "note" else progress.warn)(remark.text)
    return replace(made, remarks=remarks)


def find_images(dataset: DatasetConfig, settings: Settings) -> tuple[Found, dict[str, Any]]:
    """Return what lies where the images are, none of them read, and the inputs of their data set. Raises DataError."""
    root = settings.data_path(dataset.root if dataset.root is not None else "data")  # downloads go there
    kind = find_source(dataset.name)
    options = {name: getattr(dataset, name) for name in kind.options}
    if kind.foreign:
        options["allow_import"] = settings.allow_import
    listing = kind.find(root, dataset.image_size, **options)
    inputs: dict[str, Any] = {"schema": _SCHEMA, **dataset.model_dump(mode="json", exclude={"root", "follow_links"})}
    if listing.facts is not None:
        inputs["listing"] = content_hash(listing.facts)
    if listing.own_test:
        del inputs["test_fraction"]
    if listing.own_validation:
        del inputs["validation_fraction"]
    return listing, inputs


def dataset_request(dataset: DatasetConfig) -> dict[str, Any]:
    """Return what a prepared data set is found by: its section of the study file, as plain JSON values."""
    return dataset.model_dump(mode="json", exclude={"follow_links"})


def open_dataset(dataset: DatasetConfig, store: AssetStore) -> Dataset:
    """Open the data set as it was last prepared, without its source. Raises AssetMissing, AssetError."""
    return _from_asset(store.recall("dataset", dataset_request(dataset)))


def _from_asset(asset: Asset) -> Dataset:
    labels = torch.from_numpy(asset.array("train_labels"))
    digests, images = asset.array("train_digests"), open_stored(asset.folder, "train_images")
    # Its bytes were compared; those that another decoder makes of them were not.
    if not isinstance(images, Tensor) and row_digests(images[:1].numpy(), labels[:1].numpy())[0] != digests[0]:
        raise AssetError(
            f"the images of {asset.folder} have other pixels when they are decoded here than where they were prepared; "
            "delete that folder and run again, or install the same Pillow"
        )
    return Dataset(
        train_images=images,
        train_labels=labels,
        validation_images=open_stored(asset.folder, "validation_images"),
        validation_labels=torch.from_numpy(asset.array("validation_labels")),
        class_names=tuple(json.loads(asset.read("classes.json"))),
        mean=tuple(asset.facts["mean"]),
        std=tuple(asset.facts["std"]),
        sha256=asset.sha256,
        train_digests=digests,
        own_validation=bool(asset.facts.get("own_validation")),
        remarks=_remarks(asset.facts.get("found", ())) + _remarks(asset.facts.get("read", ())),
        folder=asset.folder,
    )


def _remarks(noted: Sequence[Sequence[Any]]) -> tuple[Remark, ...]:
    return tuple(Remark(*remark) for remark in noted)


class _Workplace:
    """The `Workplace` of a source: the draft that its images go to, a lock, and progress."""

    def __init__(self, store: AssetStore, draft: Draft, progress: Progress, *, room: float) -> None:
        self._draft = draft
        self._room = room
        self.lock = partial(store.lock, progress=progress)
        self.task = progress.task
        self.note = progress.note

    def table(self, **columns: tuple[Any, tuple[int, ...]]) -> Table:
        """Return arrays to fill, see `Draft.table`. Raises AssetError where the disk has no room for all images."""
        n_bytes = sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in columns.values())
        self._draft.require_space(int(self._room * n_bytes))
        return self._draft.table(**columns)


def _make(
    source: SourceImages,
    found: Found,
    dataset: DatasetConfig,
    inputs: Json,
    *,
    store: AssetStore,
    draft: Draft,
    progress: Progress,
) -> tuple[Asset, Asset]:
    class_names = tuple(map(accept_name, source.class_names))
    if twice := [name for name, count in Counter(class_names).items() if count > 1]:
        raise DataError(f"two classes of {dataset.name} have one name: {name_some(twice)}; rename one")
    split = split_rows(source, dataset)
    if not isinstance(source.images, np.memmap):  # else room was made for both before they were read
        draft.require_space(source.images.nbytes)
    # The test split is finished first: whoever finds the data set finds it too, killed makers included.
    with store.build("test-split", inputs, progress) as test_draft:
        test = test_draft.finished
        if test is None:
            write_images(test_draft, "images", source.images, split.test, dataset.store)
            test_draft.write_array("labels", source.labels[split.test])
            test = test_draft.commit({"images": len(split.test)})
    for name, rows in (("train", split.train), ("validation", split.validation)):
        write_images(draft, f"{name}_images", source.images, rows, dataset.store)
        draft.write_array(f"{name}_labels", source.labels[rows])
    digests, mean, std = _measure(open_stored(draft.folder, "train_images"), source.labels[split.train])
    draft.write_array("train_digests", digests)
    draft.write("classes.json", json.dumps(class_names).encode())
    draft.write("test_split.json", json.dumps({"sha256": test.sha256}).encode())  # part of the data set's identity
    facts = {
        "mean": mean,
        "std": std,
        "own_validation": found.own_validation,
        "found": found.remarks,
        "read": (*source.remarks, *_copies(source, split, class_names)),
        "images": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
    }
    # As sources name the columns of their tables.
    of_files = ("decoded", "labels", "readable", "lost_metadata", "bits", "widths", "heights")
    return draft.commit(facts, drop=tuple(f"{name}.npy" for name in of_files)), test


def _copies(source: SourceImages, split: Split, class_names: Sequence[str]) -> list[Remark]:
    """Tell of images that are in two splits or two classes, where somebody can find them by their names."""
    if source.files is None:
        return []
    files = np.array(source.files, dtype=object)
    rows = {"train": split.train, "validation": split.validation, "test": split.test}
    digests = {name: digest_images(source.images, of_split) for name, of_split in rows.items()}
    every = np.concatenate(list(rows.values()))
    found = (
        find_leaks(digests, {name: files[of_split].tolist() for name, of_split in rows.items()}),
        find_torn(
            list(chain.from_iterable(digests.values())),
            source.labels[every].tolist(),
            class_names,
            files[every].tolist(),
        ),
    )
    return [copies.remark for copies in found if copies is not None]


def _measure(images: Images, labels: NDArray[np.int64]) -> tuple[NDArray[np.uint64], list[float], list[float]]:
    """Return the rows' digests, and mean and deviation of each colour in [0, 1] pixels.

    Those come from counts of the 256 values, hence exact and without a float copy.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    digests = []
    at_once = max(1, _CHUNK_BYTES // math.prod(images.shape[1:]))
    for start in range(0, len(images), at_once):
        chunk = images[start : start + at_once].numpy()
        digests.append(row_digests(chunk, labels[start : start + at_once]))
        for channel in range(3):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    means, deviations = [], []
    values = np.arange(256) / 255
    for of_channel in counts:
        mean = float((of_channel * values).sum() / of_channel.sum())
        variance = float((of_channel * (values - mean) ** 2).sum() / of_channel.sum())
        means.append(mean)
        deviations.append(variance**0.5 or 1.0)  # a colour that never varies has nothing to scale
    return np.concatenate(digests), means, deviations
