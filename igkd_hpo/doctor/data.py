"""The images: whether they can be read, splits are apart, labels agree, and each class has enough."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igkd_hpo.assets.dataset import Dataset, prepare_dataset
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher_check import enough_to_tell
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.metrics import METRICS, Metric
from igkd_hpo.distillation.tally import largest_step
from igkd_hpo.doctor.check import Check, failed, fault, grade, not_checked, ok, warning
from igkd_hpo.errors import IgkdError
from igkd_hpo.files import sha256_of
from igkd_hpo.image_file import FULL_DEPTH, UnreadableImageError, read_image
from igkd_hpo.image_folder import Listing, list_folder
from igkd_hpo.settings import Settings
from igkd_hpo.sources import Remark
from igkd_hpo.words import percent

_GROUP = "data"
_FEW = 0.001  # of a split: so few wrong images move an accuracy by a tenth of a point at most
_COMMON = 0.9  # a class of this share makes accuracy blind: always guessing it is right as often
_LARGEST_RATIO = 10  # images of the largest class to those of the smallest, beyond which accuracy hardly counts that
_FEWEST_OF_CLASS = 10
_LARGEST_STEP = 0.01  # of the metric, by one validation image: a hundred images of accuracy
_NAMES = ("images", "unreadable", "duplicates", "labels", "blank", "classes", "validation")


def check_data(study: Study, settings: Settings, progress: Progress) -> tuple[Dataset | None, list[Check]]:
    """Return the data set, made if there is none yet, and the checks of it; None when it cannot be made."""
    store = AssetStore(settings.paths.assets, in_full=True)
    try:
        dataset = prepare_dataset(study.dataset, settings, store, progress)
        test_images, test_labels = open_test(study.dataset, settings, purpose=TestPurpose.DOCTOR_DUPLICATES)
    except IgkdError as error:
        rest = [not_checked(_GROUP, name, "the images cannot be used") for name in _NAMES[1:]]
        return None, [failed(_GROUP, _NAMES[0], error), *rest]
    splits = {"train": dataset.train_images, "validation": dataset.validation_images, "test": test_images}
    digests = {split: [_digest(image) for image in images.numpy()] for split, images in splits.items()}
    every_digest = [digest for of_split in digests.values() for digest in of_split]
    labels = torch.cat([dataset.train_labels, dataset.validation_labels, test_labels]).tolist()
    listing = None
    if study.dataset.name == "folder" and study.dataset.root is not None:
        listing = list_folder(settings.data_path(study.dataset.root), follow_links=study.dataset.follow_links)
    read = partial(read_image, size=study.dataset.image_size, bits=study.dataset.bits or FULL_DEPTH)
    name_copies = partial(_name_copies, listing, read)
    height, width = dataset.image_size
    counts = ", ".join(f"{len(images):,} {split}" for split, images in splits.items())
    return dataset, [
        ok(_GROUP, "images", f"{counts}; {dataset.num_classes} classes, {width}x{height} pixels"),
        *_check_remarks(dataset),
        _check_duplicates(digests, name_copies),
        _check_labels(every_digest, labels, dataset.class_names, name_copies),
        _check_blank(dataset.train_images),
        _check_classes(dataset, study.metric),
        _check_validation(dataset, study.metric),
    ]


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _check_remarks(dataset: Dataset) -> list[Check]:
    """Show what the source said of the images: a check for each subject, as bad as the worst of it."""
    by_subject = {"unreadable": [Remark("unreadable", "every image can be read", level="note")]}
    for remark in dataset.remarks:
        others = by_subject.get(remark.about, [])
        by_subject[remark.about] = [*(other for other in others if other.level != "note"), remark]
    return [
        grade(
            _GROUP,
            subject,
            "; ".join(remark.found for remark in remarks),
            "; ".join(dict.fromkeys(remark.advice for remark in remarks if remark.advice)),
            doubtful=any(remark.level != "note" for remark in remarks),
        )
        for subject, remarks in by_subject.items()
    ]


def _check_duplicates(splits: dict[str, list[bytes]], name_copies: Callable[[bytes], str]) -> Check:
    findings, worst, example = [], 0.0, b""
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        seen = set(splits[one])
        copies = [digest for digest in splits[other] if digest in seen]
        if copies:
            findings.append(f"{len(copies)} of {len(splits[other])} {other} images are also in {one}")
            worst = max(worst, len(copies) / len(splits[other]))
            example = example or copies[0]
    if not findings:
        return ok(_GROUP, "duplicates", "no image is in two splits")
    finding = "; ".join(findings) + name_copies(example)
    advice = "remove the copies: they make accuracies look better"
    return grade(_GROUP, "duplicates", finding, advice, faulty=worst > _FEW, doubtful=True)


def _check_labels(
    digests: list[bytes], labels: list[int], class_names: tuple[str, ...], name_copies: Callable[[bytes], str]
) -> Check:
    classes: dict[bytes, set[int]] = defaultdict(set)
    for digest, label in zip(digests, labels, strict=True):
        classes[digest].add(label)
    torn = [digest for digest in digests if len(classes[digest]) > 1]
    if not torn:
        return ok(_GROUP, "labels", "no image is in two classes")
    first, second, *_ = (class_names[label] for label in sorted(classes[torn[0]]))
    finding = f"{len(torn)} images have a copy in another class, such as {first!r} and {second!r}{name_copies(torn[0])}"
    faulty = len(torn) / len(digests) > _FEW
    return grade(_GROUP, "labels", finding, "keep each in the right class only", faulty=faulty, doubtful=True)


def _name_copies(listing: Listing | None, read: Callable[[Path], NDArray[np.uint8]], digest: bytes) -> str:
    """Name two files that hold the image of this digest, where they are equal byte for byte: ` (a and b)`."""
    if listing is None:
        return ""

    same_size = defaultdict(list)
    for row, path in enumerate(listing.paths):
        if path.is_file():
            same_size[path.stat().st_size].append(row)
    for rows in same_size.values():
        same_content = defaultdict(list)
        for row in rows if len(rows) > 1 else ():
            same_content[sha256_of(listing.paths[row])].append(row)
        for first, *others in same_content.values():
            with suppress(UnreadableImageError):
                if others and _digest(read(listing.paths[first])) == digest:
                    return f" ({listing.files[first]} and {listing.files[others[0]]})"
    return ""


def _check_blank(images: Tensor) -> Check:
    blank = 0
    for start in range(0, len(images), 1024):
        chunk = images[start : start + 1024]
        blank += int((chunk.amax(dim=(2, 3)) == chunk.amin(dim=(2, 3))).all(dim=1).sum().item())
    if not blank:
        return ok(_GROUP, "blank", "every training image shows something")
    finding = f"{blank} of {len(images)} training images are of one colour"
    return warning(_GROUP, "blank", finding, "remove them, or save them again")


def _check_classes(dataset: Dataset, metric: Metric) -> Check:
    names, by_accuracy = dataset.class_names, metric == "accuracy"
    in_train = torch.bincount(dataset.train_labels, minlength=len(names))
    in_validation = torch.bincount(dataset.validation_labels, minlength=len(names))
    rarest, fewest, largest = names[int(in_train.argmin())], int(in_train.min()), int(in_train.max())
    share = int(in_validation.max()) / len(dataset.validation_labels)
    if share >= _COMMON and by_accuracy:
        common = names[int(in_validation.argmax())]
        finding = f"always guessing {common!r} is right on {percent(share)} of validation, so accuracy tells little"
        return fault(_GROUP, "classes", finding, "set metric: balanced_accuracy, or add images of the other classes")
    spread = f"{fewest:,} training images of {rarest!r} to {largest:,} of {names[int(in_train.argmax())]!r}"
    if fewest == largest:
        spread = f"{fewest:,} training images of every class"
    uneven = by_accuracy and largest >= _LARGEST_RATIO * fewest
    advice = f"add images of {rarest!r}: so few teach little"
    if uneven:
        advice = f"set metric: balanced_accuracy, or add images of {rarest!r}: accuracy hardly counts that class"
    return grade(_GROUP, "classes", spread, advice, doubtful=uneven or fewest < _FEWEST_OF_CLASS)


def _check_validation(dataset: Dataset, metric: Metric) -> Check:
    labels, advice = dataset.validation_labels, dataset.more_validation
    if not enough_to_tell(dataset, metric):
        finding = f"{len(labels):,} validation images are too few to tell whether a teacher learned anything"
        return fault(_GROUP, "validation", finding, advice)
    counts = torch.bincount(labels, minlength=len(dataset.class_names))
    step, images = largest_step(counts.tolist(), metric), f"{len(labels):,} validation images"
    if metric != "accuracy":
        rarest = int(counts.masked_fill(counts == 0, len(labels) + 1).argmin())
        images = f"{int(counts[rarest]):,} validation images of {dataset.class_names[rarest]!r}"
    found = f"one of {images} is {percent(step)} of {METRICS[metric]}"
    return grade(_GROUP, "validation", found, f"{advice}: trials differ by less", doubtful=step > _LARGEST_STEP)
