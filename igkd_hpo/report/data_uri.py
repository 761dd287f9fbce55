"""Images and maps as data URIs, which a page holds without a file beside it."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from igkd_hpo.trial.pictures import to_image

_SIDE = 96  # pixels that are kept of an image: 8 rows of photographs are 0.5 MB


def map_uri(values: npt.NDArray[Any]) -> str:
    """Encode a map (H, W) in [0, 1] in colours."""
    from matplotlib import colormaps

    return image_uri(colormaps["magma"](values.astype(np.float64))[..., :3].transpose(2, 0, 1))


def image_uri(pixels: npt.NDArray[Any]) -> str:
    """Encode an image (3, H, W), uint8 or floats in [0, 1], as a data URI."""
    image = to_image(pixels)
    image.thumbnail((_SIDE, _SIDE))
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
