"""People's own images, in folders or in a list, decoded on all cores."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igkd_hpo.errors import DataError
from igkd_hpo.image_fit import Fit
from igkd_hpo.image_folder import HEIC_ADVICE, NAMED, SPLITS, Listing, list_folder, meant_split, name_some
from igkd_hpo.image_list import read_list
from igkd_hpo.names import accept_name
from igkd_hpo.sources import Found, Images, Remark, Source, Workplace
from igkd_hpo.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from igkd_hpo.image_file import ReadImage

_CHUNK_BYTES = 1 << 26  # of pixels between two marks of progress that survive a kill: 64 MiB
_READER = 2  # raise it when the same files would give other pixels, or others of them could be read
LONG = 1.2
"""Times as long as wide: beyond, a squeezed image looks wrong to people."""
NEARLY_BLACK = 14
"""Bits: images that use no more of 16 are at most a quarter as bright as they could be."""


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """The images of a listing, read as a study asks for them.

    Args:
        image_size: pixels a side; None: their own.
        bits: that a channel of 16 bits uses; None: all.
        fit: see `fit_square`.
        follow_links: see `list_folder`.
    """

    listing: Listing
    image_size: int | None
    bits: int | None
    fit: Fit
    follow_links: bool

    def __call__(self, place: Workplace) -> Images:
        """Return all images, decoded into arrays of the draft; goes on where a killed run stopped.

        Raises DataError where sizes differ while image_size is None, a class lost all its images, or the folder
        changed.
        """
        from igkd_hpo.image_file import strict_about_bombs

        with strict_about_bombs():
            return self._decode(place)

    def _decode(self, place: Workplace) -> Images:
        import numpy as np

        listing, shown = self.listing, accept_name(str(self.listing.root))
        size = self.image_size
        first, shape = (None, (3, size, size)) if size else self._first_readable()
        n_files = len(listing.files)
        at_once = max(16, _CHUNK_BYTES // int(np.prod(shape)))
        of_files = {"readable": np.bool_, "lost_metadata": np.bool_, "bits": np.uint8}
        of_files |= {"widths": np.uint32, "heights": np.uint32}
        columns = {name: (kind, (n_files,)) for name, kind in of_files.items()}
        table = place.table(decoded=(np.uint8, (n_files, *shape)), **columns)
        # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes. On 2 cores, 40
        # photographs to 800x800 take 2.0 s with one thread, 1.0 with two, 1.2 with two processes; 3,000 JPEG files of
        # 32x32 take 0.7, 0.65 and 0.3.
        threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        with place.task("decoding images", n_files) as advance, threads as pool:
            advance(table.rows_done)
            while table.rows_done < n_files:
                rows = range(table.rows_done, min(table.rows_done + at_once, n_files))
                images = np.zeros((len(rows), *shape), dtype=np.uint8)
                seen: dict[str, NDArray[Any]] = {
                    name: np.zeros(len(rows), dtype=kind) for name, kind in of_files.items()
                }
                paths = listing.paths[rows.start : rows.stop]
                for number, (read, _) in enumerate(pool.map(self._read, paths)):
                    if read is None:
                        continue
                    if read.pixels.shape != shape:
                        height, width = read.pixels.shape[1:]
                        raise DataError(
                            f"images in {shown} have different sizes: {first} is {shape[2]}x{shape[1]}, "
                            f"{listing.files[rows[number]]} is {width}x{height}; "
                            f"set dataset.image_size, such as {min(shape[1:])}, to resize all of them"
                        )
                    images[number], seen["readable"][number] = read.pixels, True
                    seen["lost_metadata"][number], seen["bits"][number] = read.lost_metadata, read.bits
                    seen["widths"][number], seen["heights"][number] = read.width, read.height
                table.append(decoded=images, **seen)
                advance(len(rows))
        if _list(listing.root, follow_links=self.follow_links).facts != listing.facts:
            raise DataError(f"files in {shown} changed while they were read; run again when nothing writes there")
        of_files_seen = {name: np.array(table.column(name)) for name in of_files}
        return Images(
            images=table.column("decoded"),
            labels=np.array(listing.labels, dtype=np.int64),
            n_train=listing.sizes[0],
            n_validation=listing.sizes[1],
            class_names=listing.class_names,
            rows=np.flatnonzero(of_files_seen["readable"]),
            files=listing.files,
            remarks=(
                *self._about_unreadable(of_files_seen["readable"]),
                *self._about_metadata(of_files_seen["lost_metadata"]),
                *self._about_depth(of_files_seen["bits"]),
                *self._about_size(of_files_seen["widths"], of_files_seen["heights"]),
            ),
        )

    def _read(self, path: Path) -> "tuple[ReadImage | None, str]":
        """Return the image, or None, and in words whether it can be read."""
        from igkd_hpo import image_file

        try:
            bits = self.bits or image_file.FULL_DEPTH
            return image_file.examine_image(path, self.image_size, bits=bits, fit=self.fit), "it can be read now"
        except image_file.UnreadableImageError as error:
            return None, str(error)

    def _first_readable(self) -> tuple[str, tuple[int, ...]]:
        listing = self.listing
        for name, path in zip(listing.files, listing.paths, strict=True):
            read, _ = self._read(path)
            if read is not None:
                return name, read.pixels.shape
        first, reason = listing.files[0], self._read(listing.paths[0])[1]
        shown = accept_name(str(listing.root))
        raise DataError(f"none of the {len(listing.files)} images in {shown} can be read ({first}: {reason})")

    def _about_unreadable(self, readable: "NDArray[np.bool_]") -> Iterator[Remark]:
        listing = self.listing
        unreadable = [row for row, was_read in enumerate(readable) if not was_read]
        if not unreadable:
            return
        reasons = [f"{listing.files[row]} ({self._read(listing.paths[row])[1]})" for row in unreadable[:NAMED]]
        named = name_some([*reasons, *map(str, unreadable[NAMED:])])
        found = f"{len(unreadable)} of {len(listing.files)} images cannot be read: {named}"
        start = 0
        for split, size in zip(SPLITS, listing.sizes, strict=True):
            labels, was_read = listing.labels[start : start + size], readable[start : start + size]
            left = {label for label, one in zip(labels, was_read, strict=True) if one}
            if lost := sorted(set(labels) - left):
                folder = f"{split}/{listing.class_names[lost[0]]}"
                raise DataError(f"{found}; that leaves no image in {folder}: mend the files or remove the class")
            start += size
        yield Remark("unreadable", f"{found}; they were left out", "mend these files or remove them")

    def _about_metadata(self, lost: "NDArray[np.bool_]") -> Iterator[Remark]:
        if not lost.any():
            return
        named = name_some([self.listing.files[row] for row in lost.nonzero()[0]])
        found = f"{lost.sum()} of {len(lost)} images have damaged metadata, without which they were read: {named}"
        yield Remark("metadata", found, "look whether these stand upright: their orientation may be lost")

    def _about_depth(self, bits: "NDArray[np.uint8]") -> Iterator[Remark]:
        used, count = int(bits.max()), int((bits > 0).sum())
        images = f"{count} of {len(bits)} images have 16 bits a channel"
        if not count:
            if self.bits is not None:
                found = f"dataset.bits is {self.bits}, and no image has 16 bits a channel"
                yield Remark("depth", found, "remove dataset.bits")
        elif self.bits is None and used <= NEARLY_BLACK:
            found = f"{images} and use at most {used} of them, so that they are nearly black"
            yield Remark("depth", found, f"set dataset.bits to what the camera has, such as {usual_depth(used)}")
        elif self.bits is not None and used > self.bits:
            beyond = int((bits > self.bits).sum())
            found = f"{images}; {beyond} use more than the {self.bits} that dataset.bits says (up to {used})"
            yield Remark("depth", found, f"set dataset.bits to {usual_depth(used)}: what is brighter has become white")
        else:
            found = f"{images} and use at most {used} of them; {self.bits or 16} are taken for white"
            yield Remark("depth", found, level="note")

    def _about_size(self, widths: "NDArray[np.uint32]", heights: "NDArray[np.uint32]") -> Iterator[Remark]:
        import numpy as np

        if self.image_size is None:
            return
        short, long = np.minimum(widths, heights), np.maximum(widths, heights)
        of_all = f"of {np.count_nonzero(short)} images"  # those that could not be read have no size
        resized = long if self.fit == "pad" else short
        if small := np.count_nonzero((resized > 0) & (resized < self.image_size)):
            least = int(np.where(resized > 0, resized, np.iinfo(np.uint32).max).argmin())
            named = f"{self.listing.files[least]} ({widths[least]}x{heights[least]})"
            found = f"{small} {of_all} are smaller than dataset.image_size, {self.image_size}, and are enlarged"
            yield Remark("size", f"{found}: most of all {named}", level="note")
        if self.fit == "squeeze" and (changed := np.count_nonzero(long > LONG * short)):
            found = f"{changed} {of_all} are more than {LONG} times as long as wide and are squeezed to squares"
            yield Remark("shape", found, "set dataset.fit to crop or pad to keep their shape", level="note")


def _list(root: Path, *, follow_links: bool) -> Listing:
    return (read_list if os.path.isfile(root) else list_folder)(root, follow_links=follow_links)


def usual_depth(bits: int) -> int:
    """Return the depth of the usual sensor that gives so many bits."""
    return next(depth for depth in (8, 10, 12, 14, 16) if depth >= bits)


def _about_files(listing: Listing) -> Iterator[Remark]:
    shown = accept_name(str(listing.root))
    if listing.skipped:
        count = len(listing.skipped)
        one, many = "file in {} is left out, no image by its name", "files in {} are left out, no images by their names"
        found = f"{count} {(one if count == 1 else many).format(shown)}: {name_some(listing.skipped)}"
        yield Remark("unreadable", found, "remove them, or convert those that are images")
    if listing.heic:
        many = f"{len(listing.heic)} HEIC file{'s' * (len(listing.heic) > 1)}"
        found = f"{many} in {shown} left out, which Pillow cannot read here: {name_some(listing.heic)}"
        yield Remark("unreadable", found, HEIC_ADVICE)
    if listing.misnamed:
        found = f"left out of {shown}, images by their content and not by their names: {name_some(listing.misnamed)}"
        yield Remark("unreadable", found, "rename them to what they are")
    if listing.special:
        found = f"no regular files, and left out of {shown}: {name_some(listing.special)}"
        yield Remark("unreadable", found, "remove them")
    if listing.twice:
        found = f"folders that differ only in how Unicode writes their names are one class: {name_some(listing.twice)}"
        yield Remark("folders", found, "put their images into one folder")
    if listing.repeated:
        too_many = counted(len(listing.repeated), "line")
        found = f"{shown} names files more than once, in {too_many} too many: {name_some(listing.repeated)}"
        yield Remark("list", found, "each counts once", level="note")
    if listing.unread_columns:
        yield Remark("list", f"columns of {shown} that are not read: {name_some(listing.unread_columns)}", level="note")
    if listing.sizes[1]:
        yield Remark("splits", "val is the validation split, so dataset.validation_fraction is not used", level="note")
    if listing.neighbours:
        found = f"beside train there is also, and is not read: {name_some(listing.neighbours)}"
        renames = [(name, split) for name in listing.neighbours if (split := meant_split(name)) is not None]
        advice = "move it elsewhere, if it has nothing to do with the images"
        if renames:
            name, split = renames[0]
            advice = f"rename {name.rstrip('/')} to {split}, if it is that split"
        holds_folder = any(name.endswith("/") for name in listing.neighbours)
        yield Remark("folders", found, *((advice, "warning") if holds_folder else ("", "note")))


def find_folder(
    root: Path,
    image_size: int | None,
    *,
    fit: Fit = "squeeze",
    bits: int | None = None,
    follow_links: bool = False,
) -> Found:
    """Return what a folder holds or a list names. Raises DataError, see `list_folder` and `read_list`."""
    listing = _list(root, follow_links=follow_links)
    _, n_validation, n_test = listing.sizes
    return Found(
        own_test=n_test > 0,
        own_validation=n_validation > 0,
        read=_Reader(listing=listing, image_size=image_size, bits=bits, fit=fit, follow_links=follow_links),
        class_names=listing.class_names,
        facts=[_READER, *listing.facts],
        remarks=tuple(_about_files(listing)),
    )


SOURCE = Source(
    help="your own images, in `train/<class>/`, maybe `val/<class>/` and `test/<class>/`, or in a list",
    root="needed",
    about_root="the directory that holds `train/<class>/*`, or a list in CSV, `path,label[,split]`",
    find=find_folder,
    resizes=True,
    options=("fit", "bits", "follow_links"),
)
