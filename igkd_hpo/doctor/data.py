"""The images: whether they can be read, splits are apart, labels agree, and each class has enough."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from igkd_hpo.assets.copies import Copies, digest_images, find_leaks, find_torn
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.shown import prepare_images
from igkd_hpo.assets.splits import LARGEST_FRACTION
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher_check import enough_to_tell
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.images import Images
from igkd_hpo.distillation.metrics import COMMON_CLASS, METRICS, UNEVEN_CLASSES, Metric
from igkd_hpo.distillation.tally import largest_step
from igkd_hpo.doctor.check import Check, failed, fault, grade, not_checked, ok, warning
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import Settings
from igkd_hpo.sources import Remark
from igkd_hpo.words import counted, percent

_GROUP = "data"
_COPIES = ("duplicates", "labels")  # which have checks of their own
_FEW = 0.001  # of a split: so few wrong images move an accuracy by a tenth of a point at most
_FEWEST_OF_CLASS = 10
_LARGEST_STEP = 0.01  # of the metric, by one validation image: a hundred images of accuracy
_AT_ONCE = 256  # images that are looked at together
_NAMES = ("images", "unreadable", "duplicates", "labels", "blank", "classes", "validation")


def check_data(study: Study, settings: Settings, progress: Progress) -> tuple[Dataset | None, list[Check]]:
    """Return the data set, made if there is none yet, and the checks of it; None when it cannot be made."""
    store = AssetStore(settings.paths.assets, in_full=True)
    try:
        dataset = prepare_images(study, settings, store, progress)
        test_images, test_labels = open_test(study.dataset, settings, purpose=TestPurpose.DOCTOR_DUPLICATES)
    except IgkdError as error:
        rest = [not_checked(_GROUP, name, "the images cannot be used") for name in _NAMES[1:]]
        return None, [failed(_GROUP, _NAMES[0], error), *rest]
    splits = {"train": dataset.train_images, "validation": dataset.validation_images, "test": test_images}
    digests = {split: _digests(images) for split, images in splits.items()}
    labels = torch.cat([dataset.train_labels, dataset.validation_labels, test_labels]).tolist()
    every_digest = list(chain.from_iterable(digests.values()))
    leaks, torn = find_leaks(digests), find_torn(every_digest, labels, dataset.class_names)
    height, width = dataset.image_size
    counts = ", ".join(f"{len(images):,} {split}" for split, images in splits.items())
    return dataset, [
        ok(_GROUP, "images", f"{counts}; {dataset.num_classes} classes, {width}x{height} pixels"),
        *_check_remarks(dataset),
        _check_copies(dataset, "duplicates", leaks, none="no image is in two splits"),
        _check_copies(dataset, "labels", torn, none="no image is in two classes"),
        _check_blank(dataset.train_images),
        _check_classes(dataset, study.metric),
        _check_validation(dataset, study.metric),
    ]


def _check_remarks(dataset: Dataset) -> list[Check]:
    """Show what was said of the images when they were read: a check for each subject, as bad as the worst of it."""
    by_subject = {"unreadable": [Remark("unreadable", "every image can be read", level="note")]}
    for remark in dataset.remarks:
        if remark.about in _COPIES:
            continue
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


def _check_copies(dataset: Dataset, about: str, copies: Copies | None, *, none: str) -> Check:
    if copies is None:
        return ok(_GROUP, about, none)
    # What was said when the data set was made names the files.
    said = next((remark.found for remark in dataset.remarks if remark.about == about), copies.found)
    return grade(_GROUP, about, said, copies.advice, faulty=copies.share > _FEW, doubtful=True)


def _digests(images: Images) -> list[bytes]:
    chunks = (chunk.numpy() for chunk in _chunks(images))
    return [digest for chunk in chunks for digest in digest_images(chunk, np.arange(len(chunk)))]


def _chunks(images: Images) -> Iterator[Tensor]:
    return (images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE))


def _check_blank(images: Images) -> Check:
    blank = 0
    for chunk in _chunks(images):
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
    if share >= COMMON_CLASS and by_accuracy:
        common = names[int(in_validation.argmax())]
        finding = f"always guessing {common!r} is right on {percent(share)} of validation, so accuracy tells little"
        return fault(_GROUP, "classes", finding, "set metric: balanced_accuracy, or add images of the other classes")
    images = counted(fewest, "training image")
    spread = f"{images} of {rarest!r} to {largest:,} of {names[int(in_train.argmax())]!r}"
    if fewest == largest:
        spread = f"{images} of every class"
    uneven = by_accuracy and largest >= UNEVEN_CLASSES * fewest
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
    share = len(labels) / (len(labels) + len(dataset.train_labels))
    if share >= LARGEST_FRACTION and not dataset.own_validation:
        advice = "add images"
    return grade(_GROUP, "validation", found, f"{advice}: trials differ by less", doubtful=step > _LARGEST_STEP)
