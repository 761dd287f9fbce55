"""Splits of the images for training, validation and test: stratified by class, seeded, rows in their own order."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.errors import DataError
from igkd_hpo.sources import Images
from igkd_hpo.words import counted

LARGEST_FRACTION = 0.25
"""Share of the images for validation, beyond which those that are left teach less than finer comparisons tell."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of each split, ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(source: Images, dataset: DatasetConfig) -> Split:
    """Split the rows so that every class is in every split, in its share.

    Where the source brings no test split of its own, `test_fraction` of the rows to train on are held out first; where
    it brings no validation split, `validation_fraction` of what is left.

    Raises:
        DataError: a class has fewer images than the splits need.
    """
    labels = source.labels
    rows = np.arange(len(labels)) if source.rows is None else source.rows
    first_test = source.n_train + source.n_validation
    train, validation, test = np.split(rows, np.searchsorted(rows, (source.n_train, first_test)))
    fractions = {
        "dataset.validation_fraction": dataset.validation_fraction if source.n_validation == 0 else 0.0,
        "dataset.test_fraction": dataset.test_fraction if first_test == len(labels) else 0.0,
    }
    validation_fraction, test_fraction = fractions.values()
    needed = fewest_images(test_fraction, validation_fraction)
    counts = np.bincount(labels[train], minlength=len(source.class_names))
    if counts.min() < needed:
        rarest = int(counts.argmin())
        advice = " or ".join(["add images", *(f"change {name}" for name, share in fractions.items() if share)])
        too_few = int((counts < needed).sum())
        others = f", one of {too_few:,} with too few," if too_few > 1 else ""
        has = counted(int(counts[rarest]), "image")
        raise DataError(
            f"class {source.class_names[rarest]!r}{others} has {has} to train on, and the splits need {needed} of "
            f"every class; {advice}"
        )
    if test_fraction:
        train, test = _stratify(train, labels, test_fraction, dataset.split_seed)
    if validation_fraction:
        train, validation = _stratify(train, labels, validation_fraction, dataset.split_seed)
    return Split(train=train, validation=validation, test=test)


def split_sizes(n_images: int, *, test_fraction: float, validation_fraction: float) -> tuple[int, int, int]:
    """Return how many of the images to train on `split_rows` leaves there, and puts into validation and into test."""
    for_test = math.ceil(n_images * test_fraction)
    for_validation = math.ceil((n_images - for_test) * validation_fraction)
    return n_images - for_test - for_validation, for_validation, for_test


def fewest_images(test_fraction: float, validation_fraction: float) -> int:
    """Return the fewest images of a class that leave one in every split, whichever way shares are rounded."""
    for count in range(1, 10**6):
        left = count - math.ceil(count * test_fraction)
        for_test = math.floor(count * test_fraction) or not test_fraction
        for_validation = math.floor(left * validation_fraction) or not validation_fraction
        if for_test and for_validation and left > math.ceil(left * validation_fraction):
            return count
    raise DataError(
        f"dataset.validation_fraction {validation_fraction} with test_fraction {test_fraction} leaves a split empty; "
        "choose fractions such as 0.1 and 0.2"
    )


def _stratify(
    rows: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from sklearn.model_selection import train_test_split

    kept, held_out = train_test_split(rows, test_size=fraction, stratify=labels[rows], random_state=seed)
    return np.sort(kept), np.sort(held_out)
