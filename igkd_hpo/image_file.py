"""One image file as RGB pixels, whatever its colours, depth, orientation and transparency are."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from igkd_hpo.errors import first_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
_WHITE = (255, 255, 255, 255)


class UnreadableImageError(Exception):
    """Why a file could not be read as an image."""


def read_image(path: Path, size: int | None) -> NDArray[np.uint8]:
    """The image as uint8 RGB, (3, size, size), or (3, H, W) of its own where size is None.

    Grey becomes three equal channels, 16-bit grey is scaled to 8 bits, a palette is looked up, transparent pixels show
    white, and the camera's orientation mark (EXIF) is followed. Of an animation the first frame is taken. Resizing is
    bilinear over the whole area that a target pixel covers (antialias); other shapes are squeezed to the square.

    Raises:
        UnreadableImageError: it is damaged, cut off, no image, too large (Pillow's guard against decompression
            bombs), or it has pixels of a kind that says nothing about their range (32-bit and floating point).
    """
    try:
        with Image.open(path) as image:
            if size is not None:
                # JPEG decodes to a half, quarter or eighth for less work; never below twice the size asked for.
                image.draft(None, (2 * size, 2 * size))
            rgb = _to_rgb(ImageOps.exif_transpose(image))
        if size is not None and rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's many decoders raise nearly anything on damaged files, SyntaxError included
        raise UnreadableImageError(first_line(error)) from error
    return np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableImageError(
            f"pixels of mode {image.mode} have no known range; save it with 8 or 16 bits per channel"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")
