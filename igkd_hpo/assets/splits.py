"""Which images train, which validate, which test: stratified by class, seeded, rows in their own order."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of each split, ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    n_train: int,
    class_names: tuple[str, ...],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Split:
    """Split the rows so that every class is in every split, in its share.

    Args:
        labels: (N,), the class of every row.
        rows: the rows that may be used, ascending.
        n_train: rows from here on are the data set's own test split; N where it brings none, and then
            `test_fraction` of the rows are held out first.
        class_names: for messages.
        validation_fraction: of what is left for training.

    Raises:
        DataError: a class has fewer images than the splits need.
    """
    own_test = rows[rows >= n_train]
    train = rows[rows < n_train]
    first = 0.0 if len(own_test) or n_train < len(labels) else test_fraction
    needed = _needed(first, validation_fraction)
    counts = np.bincount(labels[train], minlength=len(class_names))
    if counts.min() < needed:
        least = int(counts.argmin())
        which = "dataset.validation_fraction" + (" or dataset.test_fraction" if first else "")
        raise DataError(
            f"class {class_names[least]!r} has {counts[least]} images to train on, and the splits need {needed} of "
            f"every class; add images, or change {which}"
        )
    test = own_test
    if first:
        train, test = _stratified(train, labels, first, seed)
    train, validation = _stratified(train, labels, validation_fraction, seed)
    return Split(train=train, validation=validation, test=test)


def _needed(test_fraction: float, validation_fraction: float) -> int:
    """The fewest images of a class that leave one in every split, whichever way shares are rounded."""
    for count in range(2, 10**6):
        left = count - math.ceil(count * test_fraction)
        held_out = math.floor(count * test_fraction) >= 1 or not test_fraction
        if (
            held_out
            and math.floor(left * validation_fraction) >= 1
            and left - math.ceil(left * validation_fraction) >= 1
        ):
            return count
    raise DataError(
        f"dataset.validation_fraction {validation_fraction} with test_fraction {test_fraction} leaves a split empty; "
        "choose fractions such as 0.1 and 0.2"
    )


def _stratified(
    rows: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from sklearn.model_selection import train_test_split

    kept, held_out = train_test_split(rows, test_size=fraction, stratify=labels[rows], random_state=seed)
    return np.sort(kept), np.sort(held_out)
