"""One image file as RGB pixels, whatever its colours, depth, orientation and transparency are."""

import errno
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from igkd_hpo.errors import DataError, first_line
from igkd_hpo.files import open_regular
from igkd_hpo.image_fit import Fit, fit_square
from igkd_hpo.image_metadata import without_metadata
from igkd_hpo.names import accept_name

FULL_DEPTH = 16
# Readers of Pillow that are for no image in a data set: EPS runs Ghostscript on the file; FLI and MPEG are films;
# the others know a file by its first bytes and have no decoder.
_NOT_FOR_IMAGES = {"BUFR", "EPS", "FLI", "GRIB", "HDF5", "MPEG", "WMF"}
_WHITE = (255, 255, 255, 255)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = [_UPRIGHT[mark] for mark in (5, 6, 7, 8)]
_SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B"}  # 16N is 16L on every machine that we know
_NOT_OF_THE_FILE = {  # whose content may be sound: it would be missing from a data set that is kept
    errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip
_SIGNATURES = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"))
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_LARGEST_COPY = 1 << 28  # bytes of a damaged file that are taken into memory for a second look: 256 MiB


class UnreadableImageError(Exception):
    """Why a file could not be read as an image."""


class ReadImage(NamedTuple):
    """An image, and what was seen while it was read."""

    pixels: NDArray[np.uint8]  # RGB, (3, H, W)
    lost_metadata: bool  # its orientation, profile or text is damaged, and was passed over
    bits: int  # used of the 16 that a channel has; 0 where a channel has 8 or fewer, or the file says its range
    width: int  # of the file's own pixels, upright
    height: int


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that are read, by Pillow's names: all that this installation of it decodes."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_FOR_IMAGES)


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings of file names of these formats, in small letters, with the dot."""
    read = {*image_formats(), "MPO"}  # which the reader of JPEG knows and reads
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in read)


def format_by_content(path: Path) -> str | None:
    """Return which usual image a file is by its first bytes: JPEG, PNG, GIF, WEBP or HEIC; None for all else."""
    try:
        with open_regular(path) as file:
            start = file.read(12)
    except OSError:
        return None
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp" and start[8:] in _HEIC_BRANDS:
        return "HEIC"
    return next((name for signature, name in _SIGNATURES if start.startswith(signature)), None)


@contextmanager
def strict_about_bombs() -> Iterator[None]:
    """Refuse images of one to two times Pillow's limit of pixels, of which it warns; its other warnings are silent.

    For all threads, since warnings are; more than twice the limit is refused anyway.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # a damaged EXIF block is no reason to say so for each image
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_image(path: Path, size: int | None, *, bits: int = FULL_DEPTH, fit: Fit = "squeeze") -> NDArray[np.uint8]:
    """Return the pixels of `examine_image`."""
    return examine_image(path, size, bits=bits, fit=fit).pixels


def examine_image(path: Path, size: int | None, *, bits: int = FULL_DEPTH, fit: Fit = "squeeze") -> ReadImage:
    """Read an image as uint8 RGB, (3, size, size), or (3, H, W) of its own where size is None.

    Grey becomes three equal channels, 16 bits a channel are scaled to 8, a palette is looked up, transparent pixels
    show white, and the camera's orientation mark (EXIF) is followed. Of an animation the first frame is taken. Damaged
    metadata does not matter: the pixels are read without it.

    Args:
        bits: that a channel of 16 bits really uses, 8 to 16: 2**bits - 1 is white, and what is above it too.
        fit: how other shapes become a square of `size` pixels a side, see `fit_square`.

    Raises:
        UnreadableImageError: it is damaged, cut off, no image, no regular file, too large (Pillow's guard against
            decompression bombs), or it has pixels of a kind that says nothing about their range (32-bit and floating
            point).
        DataError: it may not be read, or the disk or the network failed; that says nothing about the image.
    """
    try:
        with open_regular(path) as file:
            try:
                return _read(file, size, bits, fit)
            except UnreadableImageError:
                raise
            except Exception as error:  # Pillow reads metadata and pixels in one go
                if (read := _read_without_metadata(file, size, bits, fit)) is not None:
                    return read
                raise error
    except UnreadableImageError:
        raise
    except OSError as error:
        raise _as_error(error, path) from error
    except Exception as error:  # Pillow's many decoders raise nearly anything on damaged files, SyntaxError included
        raise UnreadableImageError(_reason(error)) from error


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height that an image's file tells, without decoding it; a camera may have turned it.

    Raises:
        UnreadableImageError, DataError: as `examine_image`.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=image_formats()) as image:
            _require_size(image)
            return image.size
    except UnreadableImageError:
        raise
    except OSError as error:
        raise _as_error(error, path) from error
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def examine_bytes(data: bytes, size: int | None, *, fit: Fit = "squeeze") -> ReadImage:
    """Read the content of an image file as `examine_image` reads a file. Raises UnreadableImageError."""
    try:
        return _read(io.BytesIO(data), size, FULL_DEPTH, fit)
    except UnreadableImageError:
        raise
    except Exception as error:
        if (read := _without_metadata(data, size, FULL_DEPTH, fit)) is not None:
            return read
        raise UnreadableImageError(_reason(error)) from error


def examine_picture(picture: Image.Image, size: int | None, *, fit: Fit = "squeeze") -> ReadImage:
    """Take an image of Pillow's as `examine_image` takes a file's. Raises UnreadableImageError, DataError."""
    try:
        _require_size(picture)
        return _pixels(picture, size, FULL_DEPTH, fit, io.BytesIO(), picture.size)
    except UnreadableImageError:
        raise
    except OSError as error:
        if error.errno in _NOT_OF_THE_FILE:
            raise DataError(f"cannot read an image: {error.strerror}; see to the disk, then run again") from error
        raise UnreadableImageError(_reason(error)) from error
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def _as_error(error: OSError, path: Path) -> UnreadableImageError | DataError:
    """Return the error for a file: about the image, or about what keeps it from being read."""
    if error.errno in _NOT_OF_THE_FILE:
        advice = "see to its permissions, the disk and the network, then run again"
        return DataError(f"cannot read {accept_name(str(path))}: {error.strerror}; {advice}")
    if isinstance(error, UnidentifiedImageError) and format_by_content(path) == "HEIC":
        return UnreadableImageError("HEIC by its content, which Pillow cannot read here")
    return UnreadableImageError(_reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text holds the address of a file object
        return "cannot identify image file"
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


def _read_without_metadata(file: BinaryIO, size: int | None, bits: int, fit: Fit) -> ReadImage | None:
    """Read the pixels of a file whose metadata may be damaged, with EXIF and its orientation where that is whole."""
    if os.fstat(file.fileno()).st_size > _LARGEST_COPY:
        return None
    file.seek(0)
    return _without_metadata(file.read(), size, bits, fit)


def _without_metadata(data: bytes, size: int | None, bits: int, fit: Fit) -> ReadImage | None:
    for keep_exif in (True, False):
        with suppress(Exception):  # cut off, or damaged where it counts
            bare = without_metadata(data, keep_exif=keep_exif)
            if bare != data:
                return _read(io.BytesIO(bare), size, bits, fit)._replace(lost_metadata=True)
    return None


def _read(file: BinaryIO, size: int | None, bits: int, fit: Fit) -> ReadImage:
    with Image.open(file, formats=image_formats()) as image:
        _require_size(image)
        seen = image.size
        if size is not None:
            # JPEG decodes to a half, quarter or eighth for less work; never below twice the size asked for.
            image.draft(None, (2 * size, 2 * size))
        return _pixels(image, size, bits, fit, file, seen)


def _require_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        n_pixels = image.width * image.height
        raise UnreadableImageError(f"Image size ({n_pixels} pixels) exceeds limit of {limit} pixels")


def _pixels(
    image: Image.Image, size: int | None, bits: int, fit: Fit, file: BinaryIO, seen: tuple[int, int]
) -> ReadImage:
    """Return an open image's pixels.

    Args:
        file: where they are read from, should they be needed once more.
        seen: its width and height as they are in the file.
    """
    width, height = seen
    raw = _raw_mode(image)
    image.load()
    turn, lost_metadata = None, False
    try:
        exif = image.getexif()
        turn = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
        lost_metadata = bool(image.info.get("exif")) and not exif  # which Pillow does not say of every kind
    except Exception:  # as many kinds as there are of damage
        lost_metadata = True
    rgb, used = _to_rgb(image, raw, bits, file)
    if turn is not None:
        rgb = rgb.transpose(turn)
        if turn in _ON_ITS_SIDE:
            width, height = height, width
    if size is not None:
        rgb = fit_square(rgb, size, fit)
    return ReadImage(np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1), lost_metadata, used, width, height)


def _raw_mode(image: Image.Image) -> str:
    """Return how the file codes a pixel, by Pillow's name, before the image is loaded; empty where it says its range.

    `RGB;16B`: three numbers of 16 bits, the upper byte first.
    """
    tiles = getattr(image, "tile", None)
    if not tiles or tiles[0].codec_name not in ("raw", "zip", "libtiff"):
        return ""
    args = tiles[0].args
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _to_rgb(image: Image.Image, raw: str, bits: int, file: BinaryIO) -> tuple[Image.Image, int]:
    """Return the image in 8 bits a channel, and how many of 16 it uses, see `ReadImage.bits`."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image).astype(np.uint32)
        if raw == "I;12":  # packed, as scanners and cameras write it
            return _scaled(values, 12).convert("RGB"), 0
        if not raw:
            return _scaled(values, FULL_DEPTH).convert("RGB"), 0
        return _scaled(values, bits).convert("RGB"), int(values.max()).bit_length()
    if image.mode in ("I", "F"):
        raise UnreadableImageError(
            f"pixels of mode {image.mode} have no known range; save it with 8 or 16 bits per channel"
        )
    used = 0
    if ";16" in raw and image.mode in ("RGB", "RGBA"):  # of which Pillow keeps the upper bytes
        upper = np.asarray(image)
        used = 8 + int(upper[..., :3].max()).bit_length()
        if bits < FULL_DEPTH:
            values = upper[..., :3].astype(np.uint32) * np.uint32(256) + _lower_bytes(file, raw)[..., :3]
            alpha = image.getchannel("A") if image.mode == "RGBA" else None
            image = _scaled(values, bits)
            if alpha is not None:
                image.putalpha(alpha)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB"), used
    return image.convert("RGB"), used


def _scaled(values: NDArray[np.uint32], bits: int) -> Image.Image:
    white = (1 << bits) - 1
    return Image.fromarray(((np.minimum(values, white) * 255 + white // 2) // white).astype(np.uint8))


def _lower_bytes(file: BinaryIO, raw: str) -> NDArray[np.uint8]:
    """Read an image of 16 bits a channel once more, with the bytes of each number in the other order."""
    kind, _, order = raw.partition(";")
    if kind == "LA":
        raise UnreadableImageError("grey of 16 bits with transparency; save it without")
    swapped = f"{kind};{_SWAPPED[order]}"
    file.seek(0)
    with Image.open(file, formats=image_formats()) as image:
        image.tile = [
            tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(image)
