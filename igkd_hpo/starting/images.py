"""The images of a folder or a list, as far as a first study depends on them: read from headers and a sample."""

import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.errors import DataError
from igkd_hpo.image_folder import Listing, list_folder
from igkd_hpo.image_list import read_list
from igkd_hpo.names import accept_name
from igkd_hpo.sources.folder import LONG, NEARLY_BLACK, usual_depth
from igkd_hpo.words import counted

_HEADERS = 2000  # of so many images the size is read: half a second
_DECODED = 128  # of so many the pixels
_LARGEST = 512  # pixels a side that a larger one is decoded to, whose colours are enough here
_COLOUR = 8  # levels between channels, below which JPEG's own errors could be meant
_COLOURED = 0.01  # of the pixels, which a stamp or a date has
_INK = 32  # levels from black or from white


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What the images are.

    Args:
        root: the folder or the list, as a study file names it.
        follow_links: whether links that lead out of it were followed.
        class_names: in the order of their labels.
        train, validation, test: images of each class, without those that are known not to be readable; only zeros in a
            split that is not there.
        looked_at: how many were read as a sample, by their headers, and `decoded` of them by their pixels; `unreadable`
            of them could not be.
        left_out: files beside them that are not read, `heic` of them of phones.
        short, long: pixels of the shorter and the longer side, the median of the sample.
        smallest, largest: of all sides that were seen.
        same_square: pixels a side where all are squares of one size; else None.
        elongated: share that is more than 1.2 times as long as wide.
        grey: share that shows no colour.
        ink: share of the pixels that is nearly black or nearly white, the median over images.
        bits: that 16-bit images seem to use, where it is less than all and they would be dark; else None.
        seconds: to decode one.
    """

    root: str
    follow_links: bool = False
    class_names: tuple[str, ...]
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    looked_at: int
    decoded: int = 0
    unreadable: int = 0
    left_out: int = 0
    heic: int = 0
    short: int
    long: int
    smallest: int
    largest: int
    same_square: int | None = None
    elongated: float = 0.0
    grey: float = 0.0
    ink: float = 0.0
    bits: int | None = None
    seconds: float = 0.01

    @property
    def n_images(self) -> int:
        """The number of images in all splits."""
        return sum(self.train) + sum(self.validation) + sum(self.test)

    @property
    def not_read(self) -> str:
        """Say what cannot be read, as far as this look tells; nothing where there is no such file."""
        parts = []
        if self.unreadable:
            of = f"the headers of {self.looked_at:,} and the pixels of {self.decoded:,}"
            parts.append(f"{counted(self.unreadable, 'image')} cannot be read, by {of}")
        if self.left_out:
            heic = f" ({self.heic:,} HEIC)" if self.heic else ""
            parts.append(f"{counted(self.left_out, 'file')} left out{heic}")
        return "; ".join(parts)


def look_at_images(path: Path, root: str, *, follow_links: bool = False) -> ImageFacts:
    """Look at the images: list them all, and read a sample that is spread over them.

    Args:
        path: the folder or the list.
        root: its name in the study file.
        follow_links: see `list_folder`.

    Raises DataError where a study could not use them either, see `list_folder` and `read_list`, or where not one image
    of the sample can be read.
    """
    listing = (read_list if os.path.isfile(path) else list_folder)(path, follow_links=follow_links)
    from igkd_hpo.image_file import UnreadableImageError, examine_image, image_size, strict_about_bombs

    def size_of(image: Path) -> tuple[int, int] | str:
        try:
            return image_size(image)
        except UnreadableImageError as error:
            return str(error)

    some = _spread(listing.paths, _HEADERS)
    with strict_about_bombs(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        headers = list(threads.map(size_of, some))
        readable = [image for image, size in zip(some, headers, strict=True) if not isinstance(size, str)]
        begun, tones, bits, damaged = time.perf_counter(), [], [], set(some) - set(readable)
        for image in (chosen := _spread(readable, _DECODED)):
            try:
                large = max(image_size(image)) > _LARGEST
                read = examine_image(image, _LARGEST if large else None)
            except UnreadableImageError:
                damaged.add(image)
                continue
            tones.append(_tones(read.pixels))
            bits.append(read.bits)
        seconds = (time.perf_counter() - begun) / max(1, len(chosen))
    if not tones:
        reason = next((size for size in headers if isinstance(size, str)), "its pixels are damaged")
        shown, first = accept_name(str(path)), accept_name(str(some[0].name))
        raise DataError(f"not one of {len(some)} images of {shown} can be read ({first}: {reason}); mend the files")
    sizes = [size for size in headers if not isinstance(size, str)]
    shorter, longer = sorted(map(min, sizes)), sorted(map(max, sizes))
    counts = _count(listing, without=damaged)
    used = max(bits)
    return ImageFacts(
        root=root,
        follow_links=follow_links,
        class_names=listing.class_names,
        train=counts[0],
        validation=counts[1],
        test=counts[2],
        looked_at=len(some),
        decoded=len(chosen),
        unreadable=len(damaged),
        left_out=sum(map(len, (listing.skipped, listing.heic, listing.misnamed, listing.special))),
        heic=len(listing.heic),
        short=shorter[len(shorter) // 2],
        long=longer[len(longer) // 2],
        smallest=shorter[0],
        largest=longer[-1],
        same_square=shorter[0] if shorter[0] == longer[-1] else None,
        elongated=sum(max(size) > LONG * min(size) for size in sizes) / len(sizes),
        grey=sum(not coloured for coloured, _ in tones) / len(tones),
        ink=sorted(ink for _, ink in tones)[len(tones) // 2],
        bits=usual_depth(used) if 0 < used <= NEARLY_BLACK else None,
        seconds=seconds,
    )


def _spread(paths: Sequence[Path], most: int) -> Sequence[Path]:
    """Return up to `most` of them at equal distances, so that each split and class has its share."""
    if len(paths) <= most:
        return paths
    return [paths[number * len(paths) // most] for number in range(most)]


def _count(listing: Listing, *, without: Collection[Path]) -> tuple[tuple[int, ...], ...]:
    """Count the images of each class, split by split, without some."""
    counts, start = [], 0
    for size in listing.sizes:
        of_class, of_split = [0] * len(listing.class_names), slice(start, start + size)
        for label, path in zip(listing.labels[of_split], listing.paths[of_split], strict=True):
            of_class[label] += path not in without
        counts.append(tuple(of_class))
        start += size
    return tuple(counts)


def _tones(pixels: NDArray[np.uint8]) -> tuple[bool, float]:
    """Return whether an image, uint8 (3, H, W), shows colour, and its share of nearly black and white pixels."""
    spread = pixels.max(axis=0).astype(np.int16) - pixels.min(axis=0)
    ink = ((pixels < _INK) | (pixels > 255 - _INK)).all(axis=0)
    return bool((spread > _COLOUR).mean() > _COLOURED), float(ink.mean())
