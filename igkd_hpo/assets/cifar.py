"""CIFAR-10 and CIFAR-100 as their authors publish them, through torchvision, which downloads and checks them."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.errors import DataError, first_line


def load_cifar(
    name: Literal["cifar10", "cifar100"], root: Path, store: AssetStore, progress: Progress
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int, tuple[str, ...]]:
    """All images, downloaded to `root` where they are not there yet.

    Returns:
        images uint8 (60000, 3, 32, 32), the training images first; labels int64 (60000,); how many of them are training
        images; the names of the classes, in the data set's own order of labels.

    Raises:
        DataError: they are not there, or damaged, and cannot be downloaded; the message says where to put them by hand.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    cifar = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    with store.lock(f"download-{name}", progress, waiting_for=f"another process that is downloading {name}"):
        if not (root / cifar.base_folder).is_dir():
            progress.note(f"downloading {name} to {root}")
        try:
            train = cifar(root, train=True, download=True)
            test = cifar(root, train=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{name} is not (whole) in {root} and could not be downloaded ({first_line(error)}); "
                f"download {cifar.url} by hand to {root / cifar.filename} and run again, "
                f"or set dataset.root to the folder that holds {cifar.base_folder}"
            ) from error
    images = np.concatenate([train.data, test.data]).transpose(0, 3, 1, 2)
    labels = np.array([*train.targets, *test.targets], dtype=np.int64)
    return images, labels, len(train.data), tuple(train.classes)
