"""Splits of the images for training, validation and test: stratified by class, seeded, rows in their own order."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.config.study import DatasetConfig
from igkd_hpo.errors import DataError
from igkd_hpo.sources import Images


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of each split, ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(source: Images, dataset: DatasetConfig) -> Split:
    """Split the rows so that every class is in every split, in its share.

    Where the source brings no test split of its own, `test_fraction` of the rows are held out first.

    Raises:
        DataError: a class has fewer images than the splits need.
    """
    labels = source.labels
    rows = np.arange(len(labels)) if source.rows is None else source.rows
    train, test = rows[rows < source.n_train], rows[rows >= source.n_train]
    test_fraction = 0.0 if source.n_train < len(labels) else dataset.test_fraction
    needed = _fewest_images(test_fraction, dataset.validation_fraction)
    counts = np.bincount(labels[train], minlength=len(source.class_names))
    if counts.min() < needed:
        rarest = int(counts.argmin())
        fractions = "dataset.validation_fraction" + (" or dataset.test_fraction" if test_fraction else "")
        raise DataError(
            f"class {source.class_names[rarest]!r} has {counts[rarest]} images to train on, and the splits need "
            f"{needed} of every class; add images, or change {fractions}"
        )
    if test_fraction:
        train, test = _stratify(train, labels, test_fraction, dataset.split_seed)
    train, validation = _stratify(train, labels, dataset.validation_fraction, dataset.split_seed)
    return Split(train=train, validation=validation, test=test)


def _fewest_images(test_fraction: float, validation_fraction: float) -> int:
    """Return the fewest images of a class that leave one in every split, whichever way shares are rounded."""
    for count in range(2, 10**6):
        left = count - math.ceil(count * test_fraction)
        for_test = math.floor(count * test_fraction) or not test_fraction
        for_validation = math.floor(left * validation_fraction)
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
