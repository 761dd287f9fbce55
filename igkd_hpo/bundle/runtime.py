"""Student that onnxruntime runs; no torch here, so that `predict` starts at once."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from igkd_hpo.config.space import Frozen
from igkd_hpo.distillation.latency import Latency, measure_latency
from igkd_hpo.errors import DataError, UsageError, first_line
from igkd_hpo.image_file import FULL_DEPTH
from igkd_hpo.image_fit import Fit
from igkd_hpo.names import accept_name

_BATCH_PIXELS = 256 * 32 * 32  # of images that are shown at once: their activations are in memory together
NEEDED_TO_RUN = ("onnxruntime",)
NEEDED_TO_MAKE = ("onnx", "onnxruntime", "onnxscript", "safetensors")


def require(packages: tuple[str, ...]) -> None:
    """Raise UsageError when one of the packages, which only bundles need, is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UsageError(
            f"bundles need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            "`pip install 'igkd-hpo[bundle]'` (in a checkout: `pip install '.[bundle]'`)"
        )


_Pixels = Annotated[int, Field(ge=1, le=4096)]  # a network for a larger side than this is not a small one


class _Description(Frozen):
    """Metadata of an ONNX file: whatever stands there is held to these types and bounds before it is used."""

    classes: tuple[str, ...]
    image_size: tuple[_Pixels, _Pixels]
    bits: Annotated[int, Field(ge=8, le=FULL_DEPTH)] = FULL_DEPTH
    fit: Fit = "squeeze"


class OnnxStudent:
    """Student in an ONNX file of a bundle: uint8 images (N, 3, H, W) in, logits (N, K) out.

    One thread of the CPU, so that its latency is the same whatever else the machine has.

    Attributes:
        class_names: in the order of the logits.
        image_size: height and width, in pixels.
        bits: that the images' channels of 16 bits use.
        fit: how images of other shapes become squares.
        images_at_once: how many of any number are shown to it together.

    Raises:
        UsageError: onnxruntime is not installed.
        DataError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        require(NEEDED_TO_RUN)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Fatal ones alone: an error is raised as well, and would be printed with the names in the file as they are.
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            n_logits = self._session.get_outputs()[0].shape[1]
            stated = {key: json.loads(metadata[key]) for key in _Description.model_fields if key in metadata}
            names = stated.get("classes")
            if isinstance(names, list):  # of what is no Unicode too
                stated["classes"] = [accept_name(name) if isinstance(name, str) else name for name in names]
            described = _Description.model_validate_json(json.dumps(stated))
            if len(described.classes) != n_logits:
                raise ValueError(f"it names {len(described.classes)} classes and tells {n_logits} apart")
        except Exception as error:  # onnxruntime's own errors have no common base
            raise DataError(f"{path} cannot be used ({first_line(error)}); export the bundle again") from error
        self.class_names, self.image_size = described.classes, described.image_size
        self.bits, self.fit = described.bits, described.fit
        self.images_at_once = max(1, _BATCH_PIXELS // (self.image_size[0] * self.image_size[1]))

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (N, K) of uint8 RGB images (N, 3, H, W). Raises DataError where the file gives none."""
        size = self.images_at_once
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([self._run(batch) for batch in batches])

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            logits = self._session.run(["logits"], {"images": batch})[0]
            if logits.shape != (wanted := (len(batch), len(self.class_names))):
                raise ValueError(f"it gives {logits.shape} and not {wanted}")
            return np.asarray(logits, dtype=np.float32)
        except Exception as error:  # onnxruntime's own errors have no common base
            raise DataError(f"{self._path} cannot be used ({first_line(error)}); export the bundle again") from error

    def latency(self, image: NDArray[np.uint8]) -> Latency:
        """Time one image (1, 3, H, W)."""
        feed = {"images": np.ascontiguousarray(image)}
        return measure_latency(lambda: self._session.run(["logits"], feed))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Turn the rows of (N, K) into probabilities."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
