"""Fit of an image into a square: cut, padded or squeezed."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

Fit = Literal["squeeze", "crop", "pad"]
"""What becomes of an image that is no square, see `fit_square`."""


def fit_square(image: "Image.Image", size: int, fit: Fit) -> "Image.Image":
    """Return an RGB image as a square of `size` pixels a side; one that is such a square stays as it is.

    Resizing is bilinear over the whole area that a target pixel covers (antialias).

    Args:
        fit: `crop` takes the square in the middle; `pad` takes all of the image and fills the rest; `squeeze` takes all
            of it and changes its shape.
    """
    from PIL import Image, ImageStat

    if image.size == (size, size):
        return image
    if fit == "crop":
        side = min(image.size)
        # Whole pixels: a square that began between two of them would blur even an image that needs no resizing.
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if fit == "pad":
        scale = size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        inner = image.resize((width, height), Image.Resampling.BILINEAR)
        # Its mean colour: the least of an edge that one colour can make, and the mean of the pixels stays what it was.
        # Black would be a bar that differs most from bright images, and the mean of the data set is not known here.
        square = Image.new("RGB", (size, size), tuple(round(mean) for mean in ImageStat.Stat(inner).mean))
        square.paste(inner, ((size - width) // 2, (size - height) // 2))
        return square
    return image.resize((size, size), Image.Resampling.BILINEAR)
