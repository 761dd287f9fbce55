"""People's own data sets: `module:function`, whose module this machine was told to trust."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from igkd_hpo.errors import DataError, near_or_all
from igkd_hpo.image_fit import Fit
from igkd_hpo.image_folder import SPLITS, meant_split
from igkd_hpo.own_code import call_function, code_version
from igkd_hpo.sources import Found, Source
from igkd_hpo.sources.reading.items import ItemReader, Split, Splits, count_items

_READER = 1  # raise it when the same items would give other pixels


def named(name: str) -> Source:
    """Return the source of `module:function`."""
    return replace(SOURCE, find=partial(_find, name), form=None, named=None)


def _find(
    name: str, root: Path, image_size: int | None, *, allow_import: Collection[str], fit: Fit = "squeeze"
) -> Found:
    """Call the function, which may take `root` and `image_size`, and look at what it returns, no item of it.

    Raises UsageError where the module is not trusted or its code raises, DataError where it returns no splits.
    """
    returned = call_function(name, allow_import, root=root, image_size=image_size)
    found = {split: Split(said, items) for split, (said, items) in _splits_of(name, returned).items()}
    sizes = {split: count_items(name, part) for split, part in found.items()}
    train = found.get("train")
    if train is None or not sizes["train"]:
        raise DataError(f"{name} returned no images to train on; give them under 'train'")
    filled = {split: part for split, part in found.items() if sizes[split]}
    class_names = _class_names(name, train)
    for part in filled.values():
        if _class_names(name, part) not in (None, class_names):
            raise DataError(
                f"{name}: {part.name} has other classes than {train.name}; give both the same, in one order"
            )
    splits = Splits(train, filled.get("val"), filled.get("test"), class_names)
    reader = ItemReader(
        name=name,
        open=lambda place: splits,
        image_size=image_size,
        fit=fit,
        advice="mend what it gives, or leave it out there",
    )
    return Found(
        own_test=splits.test is not None,
        own_validation=splits.validation is not None,
        read=reader,
        class_names=class_names,
        facts=[_READER, code_version(name), [sizes.get(split, 0) for split in SPLITS]],
    )


def _splits_of(name: str, returned: Any) -> dict[str, tuple[str, Any]]:
    """Return by split what the function calls it, and the data set."""
    if not isinstance(returned, Mapping):
        raise DataError(
            f"{name} returned {type(returned).__name__}; it must return its splits by name: "
            "{'train': a data set of (image, label)}, and maybe 'val' and 'test'"
        )
    found: dict[str, tuple[str, Any]] = {}
    for said, items in returned.items():
        split = meant_split(f"{said}/")
        if split is None:
            raise DataError(f"{name} returned the split {said!r}{near_or_all(str(said), SPLITS)}; rename or drop it")
        if split in found:
            raise DataError(f"{name} returned {found[split][0]!r} and {said!r}, which both are {split}; drop one")
        found[split] = (str(said), items)
    return found


def _class_names(name: str, train: Split) -> tuple[str, ...] | None:
    given = getattr(train.items, "classes", None)
    if given is None:
        return None
    if not isinstance(given, tuple | list) or not all(isinstance(one, str) for one in given):
        raise DataError(f"{name}: classes of {train.name} is no list of names; make it one, in the order of the labels")
    return tuple(given)


SOURCE = Source(
    help="your own function, which returns data sets of (image, label)",
    root="optional",
    about_root="given to a function that takes `root`",
    find=_find,
    resizes=True,
    options=("fit",),
    foreign=True,
    form="module:function",
    named=named,
)
