"""Patches of ten photographs that come with scikit-image and scikit-learn: of which one is this a patch?

Of each photograph the left three fifths are for training, and of the rest the upper half for validation and the lower
for test, so that no pixel is in two splits.
"""

from typing import TYPE_CHECKING, Any

from igkd_hpo.errors import DataError, first_line
from igkd_hpo.sources import Found, Images, Published, Source, Workplace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIDE = 64
_SMALLEST, _LARGEST = 32, 96  # the validation part of the smallest photograph, a cat, is 180x150
_TRAIN, _OTHER = 80, 30  # patches of each photograph: for training, and for each of the other splits
_LEFT = 0.6
_SEED = 0
# Of scikit-image the functions of `skimage.data` by their names, of scikit-learn the files.
_SKIMAGE = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
_STEREO = "motorcycle"
_SKLEARN = ("china", "flower")


def _photographs() -> "dict[str, NDArray[np.uint8]]":
    """Return the photographs (H, W, 3) by name, in the order of their names. Raises DataError."""
    try:
        from skimage import data
    except ImportError as error:
        raise DataError(
            f"dataset patches needs the photographs of scikit-image ({first_line(error)}); "
            "pip install 'igkd-hpo[patches]'"
        ) from error
    from sklearn.datasets import load_sample_image

    read: Any = data  # which has no types
    found: dict[str, Any] = {name: getattr(read, name)() for name in _SKIMAGE}
    found[_STEREO] = read.stereo_motorcycle()[0]
    found |= {name: load_sample_image(f"{name}.jpg") for name in _SKLEARN}
    return dict(sorted(found.items()))


def _read(side: int) -> Images:
    import numpy as np

    photographs = _photographs()
    random = np.random.default_rng(_SEED)
    splits: list[list[NDArray[np.uint8]]] = [[], [], []]
    labels: list[list[int]] = [[], [], []]
    for label, photograph in enumerate(photographs.values()):
        height, width = photograph.shape[0], photograph.shape[1]
        edge, middle = int(_LEFT * width), height // 2
        areas = (photograph[:, :edge], photograph[:middle, edge:], photograph[middle:, edge:])
        for number, (area, count) in enumerate(zip(areas, (_TRAIN, _OTHER, _OTHER), strict=True)):
            tops = random.integers(0, area.shape[0] - side + 1, count)
            lefts = random.integers(0, area.shape[1] - side + 1, count)
            for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
                splits[number].append(area[top : top + side, left : left + side].transpose(2, 0, 1))
                labels[number].append(label)
    return Images(
        images=np.stack([patch for split in splits for patch in split]),
        labels=np.array([label for split in labels for label in split], dtype=np.int64),
        n_train=len(splits[0]),
        n_validation=len(splits[1]),
        class_names=tuple(photographs),
    )


def _find(root: object, image_size: int | None) -> Found:
    side = _SIDE if image_size is None else image_size
    if not _SMALLEST <= side <= _LARGEST:
        raise DataError(f"dataset.image_size is {side}, and patches have {_SMALLEST} to {_LARGEST} pixels; change it")

    def read(place: Workplace) -> Images:
        return _read(side)

    return Found(own_test=True, own_validation=True, read=read, facts={"side": side})


SOURCE = Source(
    help="1,400 patches of ten real photographs in scikit-image and scikit-learn",
    root="unused",
    about_root="patches are cut from photographs that come with packages",
    resizes=True,
    find=_find,
    published=Published(images=800, side=_SIDE, classes=10),
)
