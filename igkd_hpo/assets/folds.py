"""Assignment of the training images to folds: to the one teacher that does not see them."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.errors import DataError

_SEED = 0


def assign_folds(dataset: Dataset, n_folds: int) -> Tensor:
    """Assign every training image its fold, int64 (N,), in [0, n_folds); teacher m does not see fold m.

    Shuffled, then dealt out class by class: the sizes of two folds differ by one image at most, in each class and
    altogether. Raises DataError where a class has fewer images than there are folds.
    """
    labels = dataset.train_labels.numpy()
    counts = np.bincount(labels, minlength=dataset.num_classes)
    if counts.min() < n_folds:
        rarest = int(counts.argmin())
        raise DataError(
            f"class {dataset.class_names[rarest]!r} has {counts[rarest]} training images and teacher.folds is "
            f"{n_folds}; lower teacher.folds, or add images"
        )
    shuffled = np.random.default_rng(_SEED).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % n_folds
    return torch.from_numpy(folds)


def folds_hash(folds: Tensor) -> str:
    """Return the SHA-256 of an assignment, in hexadecimal."""
    return hashlib.sha256(folds.numpy().astype("<i8").tobytes()).hexdigest()
