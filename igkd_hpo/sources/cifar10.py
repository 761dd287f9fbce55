"""CIFAR-10 as its authors publish it, through torchvision, which downloads and checks it; CIFAR-100 likewise."""

from functools import partial
from pathlib import Path

from igkd_hpo.errors import DataError, first_line
from igkd_hpo.sources import Found, Images, Published, Source, Workplace


def cifar_source(name: str, *, classes: int) -> Source:
    """Return the source of this name, `cifar10` or `cifar100`."""
    return Source(
        help="photographs of 32x32, downloaded once",
        root="optional",
        about_root="where it is or is downloaded to",
        find=lambda root, image_size: Found(own_test=True, read=partial(_read, name, root)),
        published=Published(images=50_000, side=32, classes=classes),
    )


def _read(name: str, root: Path, place: Workplace) -> Images:
    """Return all images, downloaded to `root` where they are not there yet.

    Raises DataError where they are missing or damaged and cannot be downloaded, and says where to put them by hand.
    """
    import numpy as np
    from torchvision.datasets import CIFAR10, CIFAR100

    cifar = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    with place.lock(f"download-{name}", waiting_for=f"another process that is downloading {name}"):
        if not (root / cifar.base_folder).is_dir():
            place.note(f"downloading {name} to {root}")
        try:
            train = cifar(root, train=True, download=True)
            test = cifar(root, train=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{name} is not (whole) in {root} and could not be downloaded ({first_line(error)}); "
                f"download {cifar.url} by hand to {root / cifar.filename} and run again, "
                f"or set dataset.root to the folder that holds {cifar.base_folder}"
            ) from error
    return Images(
        images=np.concatenate([train.data, test.data]).transpose(0, 3, 1, 2),
        labels=np.array([*train.targets, *test.targets], dtype=np.int64),
        n_train=len(train.data),
        class_names=tuple(train.classes),
    )


SOURCE = cifar_source("cifar10", classes=10)
