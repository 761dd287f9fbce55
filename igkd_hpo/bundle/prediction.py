"""Predictions of a bundle's network for people's images, with onnxruntime alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.bundle.contents import ONNX, check_files, read_record
from igkd_hpo.bundle.runtime import OnnxStudent, softmax
from igkd_hpo.errors import DataError
from igkd_hpo.image_file import UnreadableImageError, read_image, strict_about_bombs
from igkd_hpo.names import accept_name

TOP = 3


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Likeliest classes of one image with their probabilities (fractions), the likeliest first."""

    image: str
    classes: tuple[tuple[str, float], ...]


def predict_images(bundle: Path, images: Sequence[Path]) -> tuple[list[Prediction], list[DataError]]:
    """Return the three likeliest classes of each image, which is resized as the data set's were.

    Returns:
        The predictions, and an error for each file that is no image for this network.

    Raises:
        UsageError: there is no bundle, or onnxruntime is not installed.
        DataError: the bundle was changed.
    """
    check_files(bundle, read_record(bundle), [ONNX])
    student = OnnxStudent(bundle / ONNX)
    pixels: dict[Path, NDArray[np.uint8]] = {}
    errors = []
    with strict_about_bombs():
        for path in images:
            try:
                pixels[path] = _read(path, student)
            except DataError as error:
                errors.append(error)
    readable = [path for path in images if path in pixels]
    if not readable:
        return [], errors
    probabilities = softmax(student.logits(np.stack([pixels[path] for path in readable])))
    predictions = [
        Prediction(
            image=accept_name(str(path)),
            classes=tuple((student.class_names[k], float(row[k])) for k in np.argsort(-row, kind="stable")[:TOP]),
        )
        for path, row in zip(readable, probabilities, strict=True)
    ]
    return predictions, errors


def _read(path: Path, student: OnnxStudent) -> NDArray[np.uint8]:
    height, width = student.image_size
    shown = accept_name(str(path))
    try:
        image = read_image(path, height if height == width else None, bits=student.bits, fit=student.fit)
    except UnreadableImageError as error:
        raise DataError(f"{shown} cannot be read as an image ({error}); give image files") from error
    if image.shape[1:] != (height, width):  # a data set that is not square was not resized either
        size = f"{image.shape[2]}x{image.shape[1]}"
        raise DataError(f"{shown} is {size} pixels, the network takes {width}x{height}; resize it to that")
    return image
