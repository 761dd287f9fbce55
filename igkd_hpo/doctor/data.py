"""The images: can they be read, are the splits apart, do the labels agree, is there enough of each class."""

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, failed, fault, not_checked, ok, warning
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import Settings
from igkd_hpo.words import percent

if TYPE_CHECKING:
    from torch import Tensor

    from igkd_hpo.assets.dataset import Dataset
    from igkd_hpo.sources.folder import Listing

_GROUP = "data"
_FEW = 0.001  # of a split: so few wrong images move an accuracy by a tenth of a point at most
_COMMON = 0.9  # a class of this share makes accuracy blind: always guessing it is right as often
_LARGEST_RATIO = 10  # images of the largest class to those of the smallest
_FEWEST_OF_CLASS = 10
_FEWEST_VALIDATION = 100  # below, one image is more than a point of accuracy
_NAMES = ("images", "unreadable", "duplicates", "labels", "blank", "classes", "validation")


def check_data(study: Study, settings: Settings, progress: Progress) -> "tuple[Dataset | None, list[Check]]":
    """The data set, made if it is not there yet, and what is wrong with it; None when it cannot be made."""
    from igkd_hpo.assets.dataset import prepare_dataset
    from igkd_hpo.assets.test_split import TestPurpose, open_test

    store = AssetStore(settings.paths.assets, in_full=True)
    try:
        dataset = prepare_dataset(study.dataset, settings, store, progress)
        test = open_test(study.dataset, settings, purpose=TestPurpose.DOCTOR_DUPLICATES)
    except IgkdError as error:
        rest = [not_checked(_GROUP, name, "the images cannot be used") for name in _NAMES[1:]]
        return None, [failed(_GROUP, _NAMES[0], error), *rest]
    height, width = dataset.image_size
    counts = (
        f"{len(dataset.train_images):,} train, {len(dataset.validation_images):,} validation, {len(test[0]):,} test"
    )
    listing = _listing(study, settings)
    return dataset, [
        ok(_GROUP, "images", f"{counts}; {dataset.num_classes} classes, {width}x{height} pixels"),
        _check_unreadable(dataset, listing, n_test=len(test[0])),
        *_check_copies(dataset, test, listing, study.dataset.image_size),
        _check_blank(dataset),
        _check_classes(dataset),
        _check_validation(dataset),
    ]


def _listing(study: Study, settings: Settings) -> "Listing | None":
    from igkd_hpo.sources.folder import list_folder

    if study.dataset.name != "folder" or study.dataset.root is None:
        return None
    return list_folder(settings.data_path(study.dataset.root))


def _check_unreadable(dataset: "Dataset", listing: "Listing | None", *, n_test: int) -> Check:
    name = "unreadable"
    if listing is None or not dataset.warnings:
        return ok(_GROUP, name, "every image can be read")
    lost = len(listing.files) - len(dataset.train_images) - len(dataset.validation_images) - n_test
    found = "; ".join(dataset.warnings)
    if lost:
        return fault(_GROUP, name, found, "mend these files or remove them")
    return warning(_GROUP, name, found, "remove them, or convert those that are images")


def _check_copies(
    dataset: "Dataset", test: "tuple[Tensor, Tensor]", listing: "Listing | None", size: int | None
) -> list[Check]:
    splits = {
        "train": _digests(dataset.train_images),
        "validation": _digests(dataset.validation_images),
        "test": _digests(test[0]),
    }
    known = [digest for digests in splits.values() for digest in digests]
    labels = [*dataset.train_labels.tolist(), *dataset.validation_labels.tolist(), *test[1].tolist()]
    return [_check_duplicates(splits, listing, size), _check_labels(known, labels, dataset.class_names, listing, size)]


def _digests(images: "Tensor") -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy()]


def _check_duplicates(splits: dict[str, list[bytes]], listing: "Listing | None", size: int | None) -> Check:
    name = "duplicates"
    found, worst, example = [], 0.0, b""
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        seen = set(splits[one])
        copies = [digest for digest in splits[other] if digest in seen]
        if copies:
            found.append(f"{len(copies)} of {len(splits[other])} {other} images are also in {one}")
            worst = max(worst, len(copies) / len(splits[other]))
            example = example or copies[0]
    if not found:
        return ok(_GROUP, name, "no image is in two splits")
    report = fault if worst > _FEW else warning
    named = _named(example, listing, size)
    return report(_GROUP, name, "; ".join(found) + named, "remove the copies: they make accuracies look better")


def _check_labels(
    digests: list[bytes], labels: list[int], class_names: tuple[str, ...], listing: "Listing | None", size: int | None
) -> Check:
    name = "labels"
    classes: dict[bytes, set[int]] = defaultdict(set)
    for digest, label in zip(digests, labels, strict=True):
        classes[digest].add(label)
    torn = [digest for digest in digests if len(classes[digest]) > 1]
    if not torn:
        return ok(_GROUP, name, "no image is in two classes")
    first, second, *_ = sorted(classes[torn[0]])
    found = (
        f"{len(torn)} images have a copy in another class, such as {class_names[first]!r} and {class_names[second]!r}"
    )
    report = fault if len(torn) / len(digests) > _FEW else warning
    return report(_GROUP, name, found + _named(torn[0], listing, size), "keep each in the right class only")


def _named(digest: bytes, listing: "Listing | None", size: int | None) -> str:
    """The files of one image that lie in two places, where they are equal byte for byte."""
    if listing is None:
        return ""
    from igkd_hpo.image_file import UnreadableImageError, read_image

    same_size = defaultdict(list)
    for file in listing.files:
        path = listing.root / file
        if path.is_file():
            same_size[path.stat().st_size].append(file)
    for files in same_size.values():
        copies = defaultdict(list)
        for file in files if len(files) > 1 else ():
            copies[hashlib.blake2b((listing.root / file).read_bytes()).digest()].append(file)
        for group in copies.values():
            try:
                image = read_image(listing.root / group[0], size) if len(group) > 1 else None
            except UnreadableImageError:
                continue
            if image is not None and hashlib.blake2b(image.tobytes(), digest_size=16).digest() == digest:
                return f" ({' and '.join(group[:2])})"
    return ""


def _check_blank(dataset: "Dataset") -> Check:
    name = "blank"
    images = dataset.train_images
    blank = 0
    for start in range(0, len(images), 1024):
        chunk = images[start : start + 1024]
        blank += int((chunk.amax(dim=(2, 3)) == chunk.amin(dim=(2, 3))).all(dim=1).sum().item())
    if not blank:
        return ok(_GROUP, name, "every training image shows something")
    return warning(
        _GROUP, name, f"{blank} of {len(images)} training images are of one colour", "remove them, or save them again"
    )


def _check_classes(dataset: "Dataset") -> Check:
    import torch

    name = "classes"
    counts = torch.bincount(dataset.train_labels, minlength=dataset.num_classes)
    least, most = int(counts.argmin()), int(counts.argmax())
    fewest, largest = int(counts[least]), int(counts[most])
    in_validation = torch.bincount(dataset.validation_labels, minlength=dataset.num_classes)
    common = int(in_validation.argmax())
    share = int(in_validation[common]) / len(dataset.validation_labels)
    names = dataset.class_names
    spread = f"{fewest:,} training images of {names[least]!r} to {largest:,} of {names[most]!r}"
    if fewest == largest:
        spread = f"{fewest:,} training images of every class"
    if share >= _COMMON:
        return fault(
            _GROUP,
            name,
            f"always guessing {names[common]!r} is right on {percent(share)} of validation, so accuracy tells little",
            "add images of the other classes, or leave out some of this one",
        )
    if largest >= _LARGEST_RATIO * fewest:
        return warning(_GROUP, name, spread, f"add images of {names[least]!r}: accuracy hardly counts that class")
    if fewest < _FEWEST_OF_CLASS:
        return warning(_GROUP, name, spread, f"add images of {names[least]!r}: so few teach little")
    return ok(_GROUP, name, spread)


def _check_validation(dataset: "Dataset") -> Check:
    from igkd_hpo.assets.teacher_check import enough_to_tell

    name = "validation"
    n = len(dataset.validation_labels)
    if not enough_to_tell(dataset):
        return fault(
            _GROUP,
            name,
            f"{n:,} validation images are too few to tell whether a teacher learned anything",
            "raise dataset.validation_fraction or add images",
        )
    steps = f"one of {n:,} validation images is {percent(1 / n)} of accuracy"
    if n < _FEWEST_VALIDATION:
        return warning(_GROUP, name, steps, "raise dataset.validation_fraction or add images: trials differ by less")
    return ok(_GROUP, name, steps)
