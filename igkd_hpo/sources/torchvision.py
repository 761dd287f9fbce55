"""Labelled image data sets of torchvision, by its names and with its splits; it downloads and checks them itself."""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from igkd_hpo.errors import DataError, did_you_mean
from igkd_hpo.image_fit import Fit
from igkd_hpo.names import accept_name
from igkd_hpo.sources import Found, Published, Source, Workplace
from igkd_hpo.sources.reading.download import open_or_download
from igkd_hpo.sources.reading.items import ItemReader, Split, Splits

_READER = 1  # raise it when the same files would give other pixels, or another order of rows
_DIGITS = tuple(map(str, range(10)))
Arguments = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What torchvision's class does not tell before it has downloaded.

    Args:
        images: to train on, as published.
        classes: as published.
        side: pixels of its images; None where they have many sizes.
        splits: what its class is called with, for training, validation and test; None for a split that it lacks.
        class_names: where the class has none.
    """

    images: int
    classes: int
    side: int | None = None
    splits: tuple[Arguments, Arguments | None, Arguments | None]
    class_names: tuple[str, ...] | None = None


_FLAG = ({"train": True}, None, {"train": False})
_TWO = ({"split": "train"}, None, {"split": "test"})
_THREE = ({"split": "train"}, {"split": "val"}, {"split": "test"})
_NO_TEST = ({"split": "train"}, {"split": "val"}, None)
_WHOLE: tuple[Arguments, None, None] = ({}, None, None)
DATA_SETS: dict[str, DataSet] = {
    "CIFAR10": DataSet(images=50_000, classes=10, side=32, splits=_FLAG),
    "CIFAR100": DataSet(images=50_000, classes=100, side=32, splits=_FLAG),
    "CLEVRClassification": DataSet(images=70_000, classes=8, splits=_NO_TEST),  # whose test split has no labels
    "Caltech101": DataSet(images=8_677, classes=101, splits=_WHOLE),
    "Caltech256": DataSet(images=30_607, classes=257, splits=_WHOLE),
    "Country211": DataSet(images=31_650, classes=211, splits=(_THREE[0], {"split": "valid"}, _THREE[2])),
    "DTD": DataSet(images=1_880, classes=47, splits=_THREE),
    "EMNIST": DataSet(
        images=112_800, classes=47, side=28,
        splits=({"split": "balanced", "train": True}, None, {"split": "balanced", "train": False}),
    ),
    "EuroSAT": DataSet(images=27_000, classes=10, side=64, splits=_WHOLE),
    "FER2013": DataSet(images=28_709, classes=7, side=48, splits=_TWO),
    "FGVCAircraft": DataSet(images=3_334, classes=100, splits=_THREE),
    "FashionMNIST": DataSet(images=60_000, classes=10, side=28, splits=_FLAG),
    "Flowers102": DataSet(images=1_020, classes=102, splits=_THREE),
    "Food101": DataSet(images=75_750, classes=101, splits=_TWO),
    "GTSRB": DataSet(images=26_640, classes=43, splits=_TWO),
    "INaturalist": DataSet(
        images=500_000, classes=10_000, splits=({"version": "2021_train_mini"}, {"version": "2021_valid"}, None)
    ),
    "Imagenette": DataSet(images=9_469, classes=10, splits=_NO_TEST),
    "KMNIST": DataSet(images=60_000, classes=10, side=28, splits=_FLAG),
    "MNIST": DataSet(images=60_000, classes=10, side=28, splits=_FLAG),
    "OxfordIIITPet": DataSet(images=3_680, classes=37, splits=({"split": "trainval"}, None, {"split": "test"})),
    "PCAM": DataSet(
        images=262_144, classes=2, side=96, splits=_THREE, class_names=("no tumour in the centre", "tumour")
    ),
    "Places365": DataSet(
        images=1_803_460, classes=365,
        splits=({"split": "train-standard", "small": True}, {"split": "val", "small": True}, None),
    ),
    "QMNIST": DataSet(images=60_000, classes=10, side=28, splits=_FLAG),
    "RenderedSST2": DataSet(images=6_920, classes=2, splits=_THREE),
    "SEMEION": DataSet(images=1_593, classes=10, side=16, splits=_WHOLE, class_names=_DIGITS),
    "STL10": DataSet(images=5_000, classes=10, side=96, splits=_TWO),
    "SUN397": DataSet(images=108_754, classes=397, splits=_WHOLE),
    "SVHN": DataSet(images=73_257, classes=10, side=32, splits=_TWO, class_names=_DIGITS),
    "StanfordCars": DataSet(images=8_144, classes=196, splits=_TWO),
    "USPS": DataSet(images=7_291, classes=10, side=16, splits=_FLAG, class_names=_DIGITS),
}  # fmt: skip
"""Those whose images have one label each, by torchvision's names."""
_CAPTIONS = "has sentences for its images, and no classes"
_PARTS = "has outlines or boxes in its images, and no class of each"
_PAIRS = "tells which pairs of images belong together, and no class of each"
_FILM = "is made of films"
_DEPTH = "tells how far or where to things are or move, and no class of each image"
_LATER = "tests with other classes than it trains with"
WITHOUT_CLASSES: dict[str, str] = {
    **dict.fromkeys(("CocoCaptions", "Flickr30k", "Flickr8k", "SBU"), _CAPTIONS),
    **dict.fromkeys(
        ("Cityscapes", "CocoDetection", "Kitti", "SBDataset", "VOCDetection", "VOCSegmentation", "WIDERFace"), _PARTS
    ),
    **dict.fromkeys(("LFWPairs", "PhotoTour"), _PAIRS),
    **dict.fromkeys(("HMDB51", "Kinetics", "MovingMNIST", "UCF101"), _FILM),
    **dict.fromkeys(
        (
            "CREStereo", "CarlaStereo", "ETH3DStereo", "FallingThingsStereo", "FlyingChairs", "FlyingThings3D", "HD1K",
            "InStereo2k", "Kitti2012Stereo", "Kitti2015Stereo", "KittiFlow", "Middlebury2014Stereo", "SceneFlowStereo",
            "Sintel", "SintelStereo",
        ),
        _DEPTH,
    ),
    **dict.fromkeys(("LFWPeople", "Omniglot"), _LATER),
    "CelebA": "has forty yes-or-no labels for each image, and no class",
    "DatasetFolder": "is a folder of yours: write name: folder, and root",
    "FakeData": "is noise",
    "ImageFolder": "is a folder of yours: write name: folder, and root",
    "ImageNet": "is not downloaded by torchvision: unpack it, and name the folder of its train and val as folder",
    "LSUN": "is a database that torchvision does not download: write its images into a folder, by class",
    "LSUNClass": "has images without labels",
}  # fmt: skip
"""All others, and why they are none."""


def named(name: str) -> Source:
    """Return the source of `torchvision/NAME`. Raises ValueError where torchvision has no such labelled images."""
    own = name.partition("/")[2]
    if (reason := WITHOUT_CLASSES.get(own)) is not None:
        raise ValueError(f'"{name}" {reason}; choose another data set')
    if own not in DATA_SETS:
        near = did_you_mean(own, DATA_SETS).replace("mean ", "mean torchvision/")
        raise ValueError(f'"{name}" is no labelled data set of torchvision{near or f" (there are: {_ALL})"}')
    known = DATA_SETS[own]
    return replace(
        SOURCE,
        find=partial(_find, own),
        published=Published(images=known.images, side=known.side, classes=known.classes),
        needs_size=known.side is None,
        form=None,
        named=None,
    )


def _find(own: str, root: Path, image_size: int | None, *, fit: Fit = "squeeze") -> Found:
    _, validation, test = DATA_SETS[own].splits
    reader = ItemReader(
        name=f"torchvision/{own}",
        open=partial(_open, own, root),
        image_size=image_size,
        fit=fit,
        advice=f"remove what is damaged from {accept_name(str(root))}, and run again to download it anew",
    )
    return Found(own_test=test is not None, own_validation=validation is not None, read=reader, facts=[_READER])


def _open(own: str, root: Path, place: Workplace) -> Splits:
    """Return the splits, downloaded to `root` where they are not there yet. Raises DataError."""
    from torchvision import datasets

    name = f"torchvision/{own}"
    kind = getattr(datasets, own, None)
    if kind is None:
        raise DataError(f"{name} is not in the torchvision that is installed; pip install --upgrade torchvision")
    arguments = DATA_SETS[own].splits
    made = open_or_download(
        name,
        root,
        lambda folder, download: [None if one is None else _make(kind, folder, one, download) for one in arguments],
        advice=f"call torchvision.datasets.{own} with download=True where there is a network, or get it as that class "
        "says, and set dataset.root to the folder",
        place=place,
    )
    splits = [
        None if items is None else Split(split, _in_order(items, kind))
        for split, items in zip(("train", "val", "test"), made, strict=True)
    ]
    train = splits[0]
    assert train is not None
    published = DATA_SETS[own].images
    if len(train.items) < published:
        shown = accept_name(str(root))
        place.note(f"{name} has {len(train.items):,} training images in {shown}, and {published:,} were published")
    return Splits(train, splits[1], splits[2], DATA_SETS[own].class_names or _class_names(made[0]))


def _make(kind: Any, folder: Path, arguments: Arguments, download: bool) -> Any:
    """Return torchvision's data set of one split, which gives the paths of its files where its class can do that."""
    takes = inspect.signature(kind).parameters
    given = dict(arguments)
    if "loader" in takes:
        given["loader"] = Path
    if "download" in takes or "kwargs" in takes:
        given["download"] = download
    return kind(str(folder), **given)


def _in_order(items: Any, kind: Any) -> Any:
    """Return the items in the order of their files: some classes take them as the disk gives them."""
    if "loader" not in inspect.signature(kind).parameters:
        return items
    return sorted((items[number] for number in range(len(items))), key=lambda item: os.fsencode(item[0]))


def _class_names(items: Any) -> tuple[str, ...] | None:
    for attribute in ("classes", "categories", "all_categories"):
        given = getattr(items, attribute, None)
        if given:
            return tuple(name if isinstance(name, str) else ", ".join(name) for name in given)
    return None


_ALL = ", ".join(DATA_SETS)
SOURCE = Source(
    help="its labelled images, downloaded once",
    root="optional",
    about_root="where it is or is downloaded to",
    find=_find,
    resizes=True,
    options=("fit",),
    form="torchvision/NAME",
    named=named,
    known=tuple(f"torchvision/{own}" for own in DATA_SETS),
)
