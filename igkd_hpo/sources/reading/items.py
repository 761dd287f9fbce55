"""Images and labels that come one by one, from map-style data sets of libraries or of people's own code."""

import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from igkd_hpo.errors import DataError, first_line
from igkd_hpo.image_folder import NAMED, name_some
from igkd_hpo.sources import Images, Remark, Workplace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from igkd_hpo.image_file import ReadImage
    from igkd_hpo.image_fit import Fit

_CHUNK_BYTES = 1 << 26  # of pixels between two marks of progress that survive a kill: 64 MiB
_AT_ONCE = 64  # items that are fetched before they are decoded: some hold an open file
_CHANNELS = (1, 3, 4)


class Split(NamedTuple):
    """One split: what it is called in messages, and its items, of which `[number]` is an image and a label.

    An image is a `Path`, the `bytes` of a file, an image of Pillow's, or uint8 numbers: a tensor (C, H, W) or an array
    (H, W, C) or (H, W), C being 1, 3 or 4.
    """

    name: str
    items: Any


class Splits(NamedTuple):
    """All splits of a data set; None for one that it does not bring."""

    train: Split
    validation: Split | None
    test: Split | None
    class_names: tuple[str, ...] | None  # in the order of the labels; None where labels are their own names


@dataclass(frozen=True, kw_only=True)
class ItemReader:
    """Reads all images of a data set as a study asks for them.

    Args:
        name: of the data set, for messages.
        open: returns its splits; may download them. Raises DataError.
        image_size: pixels a side; None: their own.
        fit: how an image that is no square becomes one.
        advice: what to do about an item that cannot be used.
        leave_out: damaged images are left out and counted; else they are an error.
    """

    name: str
    open: Callable[[Workplace], Splits]
    image_size: int | None
    advice: str
    fit: "Fit" = "squeeze"
    leave_out: bool = False

    def __call__(self, place: Workplace) -> Images:
        """Return all images, in arrays of the draft; goes on where a killed run stopped.

        Raises DataError where an item is no image with a label, its label is none of the classes, or sizes differ while
        image_size is None.
        """
        from igkd_hpo.image_file import strict_about_bombs

        splits = self.open(place)
        with strict_about_bombs():
            return self._read(splits, place)

    def _read(self, splits: Splits, place: Workplace) -> Images:
        import numpy as np

        parts = [part for part in splits[:3] if part is not None]
        rows = [(part, number) for part in parts for number in range(count_items(self.name, part))]
        shape = self._shape(rows)
        kinds = {"labels": np.int64, "readable": np.bool_, "lost_metadata": np.bool_}
        columns = {key: (kind, (len(rows),)) for key, kind in kinds.items()}
        table = place.table(decoded=(np.uint8, (len(rows), *shape)), **columns)
        at_once = max(_AT_ONCE, _CHUNK_BYTES // int(np.prod(shape)))
        threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        with place.task("reading images", len(rows)) as advance, threads as pool:
            advance(table.rows_done)
            while table.rows_done < len(rows):
                chunk = rows[table.rows_done : table.rows_done + at_once]
                images = np.zeros((len(chunk), *shape), dtype=np.uint8)
                seen: dict[str, NDArray[Any]] = {key: np.zeros(len(chunk), dtype=kind) for key, kind in kinds.items()}
                for start in range(0, len(chunk), _AT_ONCE):
                    some = chunk[start : start + _AT_ONCE]
                    fetched = [
                        self._fetch(part, number) for part, number in some
                    ]  # one by one: such code need not be safe in threads
                    for row, read in enumerate(pool.map(self._decode, some, [image for image, _ in fetched]), start):
                        seen["labels"][row] = self._label(fetched[row - start][1], splits, *chunk[row])
                        if read is None:
                            continue
                        self._require_shape(read, shape, *chunk[row])
                        images[row], seen["readable"][row] = read.pixels, True
                        seen["lost_metadata"][row] = read.lost_metadata
                    advance(len(some))
                table.append(decoded=images, **seen)
        counts = [0 if part is None else count_items(self.name, part) for part in splits[:3]]
        readable, lost = np.array(table.column("readable")), int(np.array(table.column("lost_metadata")).sum())
        labels, names = self._classes(np.array(table.column("labels")), counts[0], splits)
        return Images(
            images=table.column("decoded"),
            labels=labels,
            n_train=counts[0],
            n_validation=counts[1],
            class_names=names,
            rows=np.flatnonzero(readable),
            remarks=(*self._about_unreadable(rows, readable), *_about_metadata(lost, len(rows))),
        )

    def _shape(self, rows: Sequence[tuple[Split, int]]) -> tuple[int, ...]:
        if self.image_size is not None:
            return 3, self.image_size, self.image_size
        for row in rows:
            if (read := self._decode(row, self._fetch(*row)[0])) is not None:
                return read.pixels.shape
        raise DataError(f"none of the {len(rows)} images of {self.name} can be read; {self.advice}")

    def _fetch(self, part: Split, number: int) -> tuple[Any, Any]:
        try:
            item = part.items[number]
        except (Exception, SystemExit) as error:  # whatever a library's or somebody's code raises is told by name
            raise self._fault(part, number, f"raises {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            given = f"{len(item)} things" if isinstance(item, tuple | list) else type(item).__name__
            raise self._fault(part, number, f"is {given}, and no (image, label)")
        return item[0], item[1]

    def _decode(self, row: tuple[Split, int], image: Any) -> "ReadImage | None":
        """Return an image as it is kept; None where it is damaged and may be left out."""
        from igkd_hpo.image_file import UnreadableImageError

        try:
            return _examine(image, self.image_size, self.fit)
        except UnreadableImageError as error:
            if self.leave_out:
                return None
            raise self._fault(*row, f"cannot be read: {error}") from error
        except TypeError as error:
            raise self._fault(*row, str(error)) from error

    def _label(self, given: Any, splits: Splits, part: Split, number: int) -> int:
        try:
            label = operator.index(given)
        except (TypeError, ValueError, RuntimeError):  # of arrays and tensors with several numbers
            kind = "None" if given is None else f"of type {type(given).__name__}"
            raise self._fault(part, number, f"has a label {kind}, which is no whole number") from None
        if not 0 <= label < 1 << 63:
            raise self._fault(part, number, f"has the label {label}; labels are 0 and more")
        if splits.class_names is not None and label >= len(splits.class_names):
            count = len(splits.class_names)
            raise self._fault(part, number, f"has the label {label}, and there are {count} classes: 0 to {count - 1}")
        return label

    def _require_shape(self, read: "ReadImage", shape: tuple[int, ...], part: Split, number: int) -> None:
        if read.pixels.shape != shape:
            height, width = read.pixels.shape[1:]
            raise DataError(
                f"images of {self.name} have different sizes: the first is {shape[2]}x{shape[1]}, item {number} of "
                f"{part.name} is {width}x{height}; set dataset.image_size, such as {min(shape[1:])}, to resize all of "
                "them"
            )

    def _classes(
        self, labels: "NDArray[np.int64]", n_train: int, splits: Splits
    ) -> tuple["NDArray[np.int64]", tuple[str, ...]]:
        """Return labels from 0 on, and the names of the classes: where there are none, the labels of train."""
        import numpy as np

        names = splits.class_names
        if names is None:
            known = np.unique(labels[:n_train])
            if len(unknown := np.setdiff1d(labels[n_train:], known)):
                raise DataError(f"{self.name} has the class {unknown[0]} outside of train alone; {self.advice}")
            labels, names = np.searchsorted(known, labels).astype(np.int64), tuple(map(str, known))
        if len(names) < 2:
            raise DataError(f"{self.name} has only the class {names[0]!r}; a classifier needs 2 or more")
        return labels, names

    def _about_unreadable(self, rows: Sequence[tuple[Split, int]], readable: "NDArray[np.bool_]") -> Iterator[Remark]:
        from igkd_hpo.image_file import UnreadableImageError

        lost = [row for row, was_read in zip(rows, readable, strict=True) if not was_read]
        if not lost:
            return
        named = []
        for part, number in lost[:NAMED]:
            try:
                _examine(self._fetch(part, number)[0], self.image_size, self.fit)
            except UnreadableImageError as error:
                named.append(f"{number} of {part.name} ({error})")
        named += [f"{number} of {part.name}" for part, number in lost[len(named) :]]
        found = f"{len(lost)} of {len(rows)} images cannot be read: {name_some(named)}"
        yield Remark("unreadable", f"{found}; they were left out", self.advice)

    def _fault(self, part: Split, number: int, what: str) -> DataError:
        return DataError(f"{self.name}: item {number} of {part.name} {what}; {self.advice}")


def count_items(name: str, part: Split) -> int:
    """Return the number of items of a split. Raises DataError where it is no data set of a known length."""
    for method in ("__len__", "__getitem__"):
        if not hasattr(type(part.items), method):
            raise DataError(
                f"{name}: {part.name} is {type(part.items).__name__}, no map-style data set: it lacks {method}; give "
                "one whose [number] is an image and a label, such as a DataLoader's .dataset"
            )
    try:
        return len(part.items)
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{name}: the length of {part.name} raises {type(error).__name__}: {first_line(error)}; mend that code"
        ) from error


def _examine(image: Any, size: int | None, fit: "Fit") -> "ReadImage":
    """Return an item's image as it is kept. Raises UnreadableImageError, TypeError where it is none."""
    from PIL import Image

    from igkd_hpo import image_file

    if isinstance(image, Path):
        return image_file.examine_image(image, size, fit=fit)
    if isinstance(image, bytes):
        return image_file.examine_bytes(image, size, fit=fit)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(_as_array(image))
    return image_file.examine_picture(picture, size, fit=fit)


def _as_array(image: Any) -> "NDArray[np.uint8]":
    """Return numbers as Pillow takes them: (H, W) or (H, W, 3 or 4). Raises TypeError where they are no image."""
    import numpy as np

    torch = sys.modules.get("torch")  # where it was not imported, nothing is a tensor
    channels_first = torch is not None and isinstance(image, torch.Tensor)
    if not channels_first and not isinstance(image, np.ndarray):
        raise TypeError(f"has a {type(image).__name__} for an image, not Pillow's, a tensor or an array of uint8")
    array = image.detach().cpu().numpy() if channels_first else image
    if array.dtype != np.uint8:
        raise TypeError(f"has an image of {array.dtype}, not of uint8 from 0 to 255: leave out what makes it so")
    if array.ndim == 3:
        axes = [axis for axis in ((0, 2) if channels_first else (2, 0)) if array.shape[axis] in _CHANNELS]
        array = np.moveaxis(array, axes[0], 2) if axes else array[..., None]
        array = array[..., 0] if array.shape[2:] == (1,) else array
    if array.ndim not in (2, 3) or 0 in array.shape:
        wanted = "(C, H, W)" if channels_first else "(H, W, C)"
        raise TypeError(f"has an image of shape {tuple(image.shape)}, not {wanted} or (H, W), C being 1, 3 or 4")
    return np.ascontiguousarray(array)


def _about_metadata(lost: int, count: int) -> Iterator[Remark]:
    if lost:
        found = f"{lost} of {count} images have damaged metadata, without which they were read"
        yield Remark("metadata", found, "look whether these stand upright: their orientation may be lost")
