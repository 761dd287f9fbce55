"""People's own images, in `train/<class>/` and maybe `test/<class>/`, which are decoded on all cores."""

import os
import warnings
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.errors import DataError
from igkd_hpo.sources import Found, Images, Source, Workplace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 26  # of pixels between two marks of progress that survive a kill: 64 MiB
_NAMED = 3  # how many files a message names


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The image files of a folder, in the order that their rows will have: train before test, class by class, by name.

    Paths are relative to `root`.
    """

    root: Path  # holds train/
    files: tuple[str, ...]
    labels: tuple[int, ...]  # of the files, indices into class_names
    n_train: int  # how many files are below train/
    has_test: bool
    class_names: tuple[str, ...]  # the folders below train/, sorted
    skipped: tuple[str, ...]  # files that are no images by their name, hidden ones included
    facts: tuple[tuple[str | int, ...], ...]  # every file's name, size and time of change


def list_folder(root: Path) -> Listing:
    """Return the image files. Folders below a class folder count to the class, links are followed.

    Raises DataError where there is no such folder, no train/, fewer than two classes, a class without images, or where
    train/ and test/ do not have the same classes.
    """
    from igkd_hpo.image_file import SUFFIXES

    if not root.is_dir():
        raise DataError(f"dataset.root {root} is no folder; name the one that holds train/<class>/*")
    train = root / "train"
    if not train.is_dir():
        raise DataError(f"{root} has no folder train; put the images into {train}/<class>/")
    class_names = _class_folders(train)
    if len(class_names) < 2:
        classes = f"only the class {class_names[0]!r}" if class_names else "no class"
        raise DataError(f"{train} holds {classes}; a classifier needs 2 or more folders {train}/<class>/ with images")
    test = root / "test"
    has_test = test.is_dir()
    if has_test:
        _require_same_classes(class_names, _class_folders(test), train, test)
    paths: list[Path] = []
    labels: list[int] = []
    skipped: list[Path] = []
    n_train = 0
    for split in (train, test) if has_test else (train,):
        for label, name in enumerate(class_names):
            images, others = _walk(split / name, SUFFIXES)
            if not images:
                suffixes = ", ".join(sorted(SUFFIXES))
                raise DataError(f"{split / name} holds no images ({suffixes}); add some, or remove the folder")
            paths += sorted(images, key=lambda path: path.parts)
            labels += [label] * len(images)
            skipped += others
        n_train = n_train or len(paths)
    files = tuple(str(path.relative_to(root)) for path in paths)
    return Listing(
        root=root,
        files=files,
        labels=tuple(labels),
        n_train=n_train,
        has_test=has_test,
        class_names=class_names,
        skipped=tuple(sorted(str(path.relative_to(root)) for path in skipped)),
        facts=tuple((name, *_size_and_time(path)) for name, path in zip(files, paths, strict=True)),
    )


def _class_folders(split: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in split.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _require_same_classes(in_train: tuple[str, ...], in_test: tuple[str, ...], train: Path, test: Path) -> None:
    for names, others, one, other in ((in_test, in_train, test, train), (in_train, in_test, train, test)):
        if only := [name for name in names if name not in others]:
            count = f" ({len(only)} differ)" if len(only) > 1 else ""
            raise DataError(
                f"{one} has the class {only[0]!r}, which {other} lacks; both need the same class folders{count}"
            )


def _walk(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[Path]]:
    """Return the image files below a folder, at any depth, and the other files."""
    images: list[Path] = []
    skipped: list[Path] = []
    # Each folder comes with the real places of those above it: a link back to one of them would never end.
    pending = [(folder, frozenset({folder.resolve()}))]
    while pending:
        current, above = pending.pop()
        for entry in os.scandir(current):
            path = Path(entry.path)
            if entry.is_dir():
                real = path.resolve()
                if not entry.name.startswith(".") and real not in above:
                    pending.append((path, above | {real}))
            elif path.suffix.lower() in suffixes and not entry.name.startswith("."):
                images.append(path)
            else:
                skipped.append(path)
    return images, skipped


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a link to nowhere: decoding counts it among the unreadable
        return -1, 0
    return status.st_size, status.st_mtime_ns


@contextmanager
def _strict_about_bombs() -> Iterator[None]:
    """Refuse images of one to two times Pillow's limit of pixels, of which it warns; its other warnings are silent."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # a damaged EXIF block is no reason to say so for each image
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@_strict_about_bombs()
def _decode(listing: Listing, image_size: int | None, place: Workplace) -> Images:
    """Return all images, decoded into the arrays `decoded` and `readable`; goes on where a killed run stopped.

    Raises DataError where sizes differ while image_size is None, a class lost all its images, or the folder changed.
    """
    import numpy as np

    first, shape = (None, (3, image_size, image_size)) if image_size else _first_readable(listing)
    n_files = len(listing.files)
    at_once = max(16, _CHUNK_BYTES // int(np.prod(shape)))
    table = place.table(decoded=(np.uint8, (n_files, *shape)), readable=(np.bool_, (n_files,)))
    # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes. On 2 cores, 40 photographs
    # to 800x800 take 2.0 s with one thread, 1.0 with two, 1.2 with two processes; 3,000 JPEG files of 32x32 take 0.7,
    # 0.65 and 0.3.
    threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    with place.task("decoding images", n_files) as advance, threads as pool:
        advance(table.rows_done)
        while table.rows_done < n_files:
            rows = range(table.rows_done, min(table.rows_done + at_once, n_files))
            images = np.zeros((len(rows), *shape), dtype=np.uint8)
            readable = np.zeros(len(rows), dtype=np.bool_)
            paths = [listing.root / listing.files[row] for row in rows]
            for number, (image, _) in enumerate(pool.map(lambda path: _read(path, image_size), paths)):
                if image is None:
                    continue
                if image.shape != shape:
                    raise DataError(
                        f"images in {listing.root} have different sizes: {first} is {shape[2]}x{shape[1]}, "
                        f"{listing.files[rows[number]]} is {image.shape[2]}x{image.shape[1]}; "
                        f"set dataset.image_size, such as {min(shape[1:])}, to resize all of them"
                    )
                images[number], readable[number] = image, True
            table.append(decoded=images, readable=readable)
            advance(len(rows))
    if list_folder(listing.root).facts != listing.facts:
        raise DataError(f"files in {listing.root} changed while they were read; run again when nothing writes there")
    readable = np.array(table.column("readable"))
    return Images(
        images=table.column("decoded"),
        labels=np.array(listing.labels, dtype=np.int64),
        n_train=listing.n_train,
        class_names=listing.class_names,
        rows=np.flatnonzero(readable),
        warnings=tuple(_warnings(listing, readable, image_size)),
    )


def _read(path: Path, size: int | None) -> "tuple[NDArray[np.uint8] | None, str]":
    """Return the image, or None, and in words whether it can be read."""
    from igkd_hpo.image_file import UnreadableImageError, read_image

    try:
        return read_image(path, size), "it can be read now"
    except UnreadableImageError as error:
        return None, str(error).replace(str(path), path.name)


def _first_readable(listing: Listing) -> tuple[str, tuple[int, ...]]:
    for name in listing.files:
        image, _ = _read(listing.root / name, None)
        if image is not None:
            return name, image.shape
    first = listing.files[0]
    reason = _read(listing.root / first, None)[1]
    raise DataError(f"none of the {len(listing.files)} images in {listing.root} can be read ({first}: {reason})")


def _warnings(listing: Listing, readable: "NDArray[np.bool_]", image_size: int | None) -> Iterator[str]:
    if listing.skipped:
        count = len(listing.skipped)
        one, many = "file in {} is left out, no image by its name", "files in {} are left out, no images by their names"
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        named = ", ".join(listing.skipped[:_NAMED])
        yield f"{count} {(one if count == 1 else many).format(listing.root)}: {named}{more}"
    unreadable = [name for name, was_read in zip(listing.files, readable, strict=True) if not was_read]
    if not unreadable:
        return
    named = ", ".join(f"{name} ({_read(listing.root / name, image_size)[1]})" for name in unreadable[:_NAMED])
    more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    message = f"{len(unreadable)} of {len(listing.files)} images cannot be read: {named}{more}"
    for split, rows in (("train", slice(0, listing.n_train)), ("test", slice(listing.n_train, None))):
        labels = listing.labels[rows]
        left = {label for label, was_read in zip(labels, readable[rows], strict=True) if was_read}
        if lost := sorted(set(labels) - left):
            folder = f"{split}/{listing.class_names[lost[0]]}"
            raise DataError(f"{message}; that leaves no image in {folder}: mend the files or remove the class")
    yield f"{message}; they were left out"


def find_folder(root: Path, image_size: int | None) -> Found:
    """Return what a folder holds, by the names of its files. Raises DataError, see `list_folder`."""
    listing = list_folder(root)
    return Found(own_test=listing.has_test, read=partial(_decode, listing, image_size), facts=listing.facts)


SOURCE = Source(
    help="your own images, in `train/<class>/` and maybe `test/<class>/`",
    root="needed",
    about_root="the directory that holds `train/<class>/*`",
    find=find_folder,
    resizes=True,
)
