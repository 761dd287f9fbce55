"""Data sets of the Hugging Face Hub, or in its layout in a folder here, through the package `datasets`."""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from igkd_hpo.errors import DataError, first_line, near_or_all
from igkd_hpo.image_fit import Fit
from igkd_hpo.image_folder import meant_split, name_some
from igkd_hpo.names import accept_name
from igkd_hpo.sources import Found, Remark, Source, Workplace
from igkd_hpo.sources.reading.items import ItemReader, Split, Splits

_READER = 1  # raise it when the same files would give other pixels
_FORM = "huggingface/OWNER/NAME"
_NAME = re.compile(r"huggingface/\w[\w.-]*(/\w[\w.-]*)?")
_SAVED, _SAVED_SPLIT = "dataset_dict.json", "state.json"  # which save_to_disk writes, for several splits and for one


def named(name: str) -> Source:
    """Return the source of `huggingface/OWNER/NAME` or `huggingface/NAME`. Raises ValueError for other forms."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f'"{name}" is not of the form {_FORM} or huggingface/NAME; copy the name from its page')
    return replace(SOURCE, find=partial(_find, name), form=None, named=None)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a data set is: below `root`, in one of the layouts of `datasets`, or on the Hub."""

    name: str
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / self.name.partition("/")[2]

    @property
    def is_here(self) -> bool:
        return self.folder.is_dir()

    @property
    def is_saved(self) -> bool:
        return any((self.folder / file).is_file() for file in (_SAVED, _SAVED_SPLIT))

    @property
    def cache(self) -> Path:
        return self.root / ".huggingface"

    @property
    def path(self) -> str:
        return str(self.folder) if self.is_here else self.name.partition("/")[2]


def _find(
    name: str,
    root: Path,
    image_size: int | None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    fit: Fit = "squeeze",
) -> Found:
    """Look at which splits there are, on the Hub or in a folder below `root`; nothing large is downloaded.

    Raises DataError where there is no such data set, or none of its splits is to train on.
    """
    place = _Place(name=name, root=root)
    with _talking(name, place) as library:
        names, facts = _saved(library, place) if place.is_saved else _built(library, place)
    splits, others = _meant(name, names)
    advice = "leave it out with a function of yours that loads the data set (dataset.name: module:function)"
    remarks: tuple[Remark, ...] = ()
    if others:
        remarks = (Remark("splits", f"{name} has also, and is not read: {name_some(others)}", level="note"),)
    return Found(
        own_test="test" in splits,
        own_validation="val" in splits,
        read=ItemReader(
            name=name,
            open=partial(_open, place, splits, image_column, label_column),
            image_size=image_size,
            fit=fit,
            advice=advice,
            leave_out=True,
        ),
        facts=[_READER, *facts],
        remarks=remarks,
    )


@contextmanager
def _talking(name: str, place: _Place) -> Iterator[Any]:
    """Lend the package `datasets`, quiet, its failures turned into a DataError of one line."""
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise DataError(
            f"dataset {name} needs the package datasets ({first_line(error)}); pip install 'igkd-hpo[huggingface]'"
        ) from error
    loggers: tuple[Any, ...] = (datasets.logging, huggingface_hub.logging)
    before, bars = [logger.get_verbosity() for logger in loggers], datasets.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.set_verbosity_error()
        datasets.disable_progress_bars()
        yield datasets
    except DataError:
        raise
    except Exception as error:  # of the network, of the Hub, of many formats of files
        if str(error).startswith("Config name is missing"):
            raise DataError(
                f"{name} has several configurations; load one of them with a function of yours "
                "(dataset.name: module:function)"
            ) from error
        advice = "mend what is there" if place.is_here else f"see to the name and the network, or put it into {_FORM}"
        shown = accept_name(str(place.root))
        advice = advice.replace(_FORM, accept_name(str(place.folder)))
        raise DataError(
            f"{name} cannot be loaded, in {shown} or from the Hub ({type(error).__name__}: {first_line(error)}); "
            f"{advice}, and run again"
        ) from error
    finally:
        for logger, verbosity in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


def _saved(library: Any, place: _Place) -> tuple[list[str], list[Any]]:
    loaded = library.load_from_disk(place.path)
    return list(loaded) if isinstance(loaded, dict) else ["train"], _files(place.folder)


def _built(library: Any, place: _Place) -> tuple[list[str], list[Any]]:
    builder = library.load_dataset_builder(place.path, cache_dir=str(place.cache))
    names = builder.info.splits or getattr(builder.config, "data_files", None) or {}
    return [str(name) for name in names], _files(place.folder) if place.is_here else [builder.hash]


def _files(folder: Path) -> list[Any]:
    found = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.parts):
        if path.is_file():
            status = path.stat()
            found.append([str(path.relative_to(folder)), status.st_size, status.st_mtime_ns])
    return found


def _meant(name: str, names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Return what the data set calls its splits, by our names, and the names of splits that are not read."""
    splits: dict[str, str] = {}
    others = []
    for said in names:
        meant = meant_split(f"{said}/")
        if meant is None:
            others.append(said)
        elif meant in splits:
            raise DataError(
                f"{name} has the splits {splits[meant]!r} and {said!r}, which both are {meant}; choose one with a "
                "function of yours that loads the data set (dataset.name: module:function)"
            )
        else:
            splits[meant] = said
    if "train" not in splits:
        raise DataError(f"{name} has no split train{near_or_all('train', names)}; choose another data set")
    return splits, others


def _open(
    place: _Place, splits: dict[str, str], image_column: str | None, label_column: str | None, work: Workplace
) -> Splits:
    """Return the splits; downloaded where they are not here, which `datasets` does as a whole or not at all."""
    plain = place.name.replace("/", "-")
    with (
        work.lock(f"download-{plain}", waiting_for=f"another process that is loading {place.name}"),
        _talking(place.name, place) as library,
    ):
        if not place.is_here:
            work.note(f"downloading {place.name}, unless it is there already, to {accept_name(str(place.cache))}")
        if place.is_saved:
            loaded = library.load_from_disk(place.path)
            loaded = loaded if isinstance(loaded, dict) else {"train": loaded}
        else:
            loaded = library.load_dataset(place.path, cache_dir=str(place.cache))
        features = loaded[splits["train"]].features
        image = _column(place.name, features, library.Image, image_column, "image_column", "images")
        label = _column(place.name, features, library.ClassLabel, label_column, "label_column", "class labels")
        class_names = tuple(features[label].names)
        parts: dict[str, Split] = {}
        for split, said in splits.items():
            items = loaded[said]
            if label not in items.features or items.features[label] != features[label]:
                raise DataError(f"{place.name}: {said} has other classes in {label!r} than train; choose another one")
            bare = items.select_columns([image, label]).cast_column(image, library.Image(decode=False))
            parts[split] = Split(said, _Rows(bare, image, label, _trusted(library, place)))
    return Splits(parts["train"], parts.get("val"), parts.get("test"), class_names)


def _column(name: str, features: Any, kind: type, told: str | None, key: str, what: str) -> str:
    """Return the column of a kind: the one that is told, or the only one. Raises DataError where there is none."""
    fitting: list[str] = [column for column, feature in features.items() if isinstance(feature, kind)]
    if told is not None:
        if told in fitting:
            return told
        raise DataError(f"{name} has no column {told!r} of {what}{near_or_all(told, fitting)}; change dataset.{key}")
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(f"{name} has several columns of {what}: {', '.join(fitting)}; name one as dataset.{key}")
    raise DataError(
        f"{name} has no column of {what} ({kind.__name__}), but {', '.join(features)}; write a function that loads it "
        "and gives (image, label) (dataset.name: module:function)"
    )


def _trusted(library: Any, place: _Place) -> tuple[Path, ...]:
    """Return the folders whose files a data set may name: its own, and what was downloaded."""
    import huggingface_hub

    folders = (place.folder, place.cache, library.config.HF_CACHE_HOME, huggingface_hub.constants.HF_HUB_CACHE)
    return tuple(Path(os.path.realpath(folder)) for folder in folders)


class _Rows:
    """A split whose items are (bytes or path of an image file, label), none of them decoded."""

    def __init__(self, items: Any, image: str, label: str, trusted: tuple[Path, ...]) -> None:
        self._items, self._image, self._label, self._trusted = items, image, label, trusted

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[bytes | Path, Any]:
        row = self._items[number]
        held = row[self._image]
        if held is None:
            raise ValueError("it has no image")
        if held["bytes"] is not None:
            return held["bytes"], row[self._label]
        path = Path(os.path.realpath(held["path"]))
        if not any(path.is_relative_to(folder) for folder in self._trusted):
            raise ValueError(f"its image is outside of the data set: {accept_name(str(path))}")
        return path, row[self._label]


SOURCE = Source(
    help="a data set of the Hub, or in its layout",
    root="optional",
    about_root="the folder that holds `OWNER/NAME`, or it is downloaded to",
    find=_find,
    resizes=True,
    options=("fit", "image_column", "label_column"),
    form=_FORM,
    named=named,
)
