"""The size of images in a first study, how they become squares, and which views of them are trained on."""

import re
from dataclasses import dataclass

from igkd_hpo.errors import DataError
from igkd_hpo.image_fit import Fit
from igkd_hpo.starting.images import ImageFacts
from igkd_hpo.starting.networks import FROM_LIBRARIES, Machine
from igkd_hpo.words import byte_size, percent

_SIDES = (160, 128, 96, 64, 48, 32, 24, 16, 8)
_LARGEST = {"cpu": 96, "cuda": 160}  # a step costs in proportion to the area; `plan` may ask for less still
_SMALLEST_KEPT = {True: 64, False: 32}  # pixels that a large and a small image are not made smaller than to save time
_OWN_SIZE = 48  # pixels, up to which squares of one size stay as they are
_MOSTLY_INK = 0.8
_LONG = 2.0  # times as long as wide: the square in the middle would be less than half of it
_MEMORY_SHARE = 0.25  # of what is free, for all images
_ONE_CHARACTER = re.compile(r"(?:digit|letter|char|class|sample)?[ _-]?[^\W_]", re.IGNORECASE)
_MIRRORED = re.compile(r"(?:^|[^a-z])(?:left|right)(?:$|[^a-z])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The images as students see them, with the reason of each choice.

    Args:
        side: pixels; `less` than the images would allow.
        views: random resized crops of each image; None: crops by `padding` pixels.
    """

    side: int
    less: bool
    side_because: str
    fit: Fit
    fit_because: str
    views: int | None
    padding: int | None
    views_because: str
    flip: bool
    flip_because: str


def sizes_to_try(images: ImageFacts, machine: Machine) -> list[Sizing]:
    """Return the sizings that the images allow, the best first; smaller ones follow, for a machine that is too slow.

    Raises DataError where even the smallest images together do not fit into memory.
    """
    fit, fit_because = _choose_fit(images)
    own = images.long if fit == "pad" else images.short
    if images.same_square is not None and 8 <= images.same_square <= _OWN_SIZE:
        sides = [images.same_square]
    else:
        most = max(8, min(own, _LARGEST[machine.kind]))
        best = next((side for side in _SIDES if side <= most), 8)
        sides = [side for side in _SIDES if min(best, _SMALLEST_KEPT[best >= FROM_LIBRARIES]) <= side <= best]
    room = _MEMORY_SHARE * machine.free_bytes
    fitting = [side for side in sides if 3 * side * side * images.n_images <= room]
    if not fitting:
        needed = byte_size(3 * sides[-1] ** 2 * images.n_images)
        raise DataError(
            f"{images.n_images:,} images of {sides[-1]} pixels take {needed} of memory, more than a quarter of what is "
            "free; begin with a part of them"
        )
    return [_sizing(images, side, fit, fit_because) for side in fitting]


def _sizing(images: ImageFacts, side: int, fit: Fit, fit_because: str) -> Sizing:
    which = "longer" if fit == "pad" else "shorter"
    own = images.long if fit == "pad" else images.short
    reason = f"half of the images have {own} pixels or more on their {which} side"
    if images.same_square is not None:
        reason = f"all images have {images.same_square}x{images.same_square} pixels"
    views, padding, views_because = _choose_views(images, side)
    flip, flip_because = _choose_flip(images.class_names)
    return Sizing(
        side=side,
        less=images.same_square != side and any(side < other <= own for other in _SIDES),
        side_because=reason,
        fit=fit,
        fit_because=fit_because,
        views=views,
        padding=padding,
        views_because=views_because,
        flip=flip,
        flip_because=flip_because,
    )


def _choose_fit(images: ImageFacts) -> tuple[Fit, str]:
    if images.same_square is not None:
        return "crop", "all images are squares already"
    if images.long > _LONG * images.short:
        return (
            "pad",
            f"half of the images are {images.long / images.short:.1f} times as long as wide: all of it is kept",
        )
    if images.ink >= _MOSTLY_INK:
        return "pad", "drawn or written images: what counts may lie at the edge"
    shape = "most images are nearly square"
    if images.elongated >= 0.5:
        shape = f"{percent(images.elongated, 0)} of the images are longer than wide"
    return "crop", f"{shape}: the square in the middle; pad keeps what lies at the edge"


def _choose_views(images: ImageFacts, side: int) -> tuple[int | None, int | None, str]:
    if images.ink >= _MOSTLY_INK:
        ink = f"{percent(images.ink, 0)} of the pixels are nearly black or white, as of drawings and writing"
        return None, max(1, side // 12), f"{ink}: shifted a little, not cut out"
    if side < FROM_LIBRARIES:
        return None, max(1, side // 8), "small images: shifted a little, not cut out"
    return 16, None, "so many random parts of each photograph, which the teacher is asked about once"


def _choose_flip(names: tuple[str, ...]) -> tuple[bool, str]:
    if 2 * sum(_ONE_CHARACTER.fullmatch(name) is not None for name in names) >= len(names):
        return False, "the classes look like digits or letters, and a mirrored one is another or none"
    if any(_MIRRORED.search(name) for name in names):
        return False, "classes are named left or right, and a mirrored image is of the other"
    return True, "a mirror image shows the same; write false where it does not: letters, road signs"
