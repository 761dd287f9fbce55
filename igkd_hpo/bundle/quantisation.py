"""Quantisation of a float ONNX file to int8: in several ways, of which the one that answers most like float is kept.

No way is best for every network. EfficientNet-Lite0 with ImageNet weights gave 120 crops of photographs, 160x160, the
answer of float in 94 % with weights per channel and percentiles, in 93 % with min-max, and in 63 and 66 % with weights
per tensor (n = 1). For MobileNetV3 onnxruntime's issue 11415 reports 54 % right per channel and 69 % per tensor.
"""

import io
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.bundle.contents import Quantisation
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.errors import IgkdError, first_line

Images = NDArray[np.uint8]
_log = logging.getLogger(__name__)

_BATCH = 8  # the calibrator holds all activations of a batch
# A histogram is made of every activation of every image, which takes seconds for each million pixels; ranges that leave
# out one in a hundred thousand are settled by some dozen images. Min and max grow with every image, and are cheap.
_PERCENTILE_PIXELS = 128 * 96 * 96
_PERCENTILE_IMAGES = range(32, 129)


class _Way(NamedTuple):
    weights: Literal["per channel", "per tensor"]
    activations: Literal["min-max", "percentile"]


# Of equals, the first is kept.
WAYS = (
    _Way("per channel", "min-max"),
    _Way("per channel", "percentile"),
    _Way("per tensor", "min-max"),
    _Way("per tensor", "percentile"),
)


def write_int8(
    source: Path,
    path: Path,
    calibration: Images,
    judged: Images,
    *,
    ways: Sequence[_Way] = WAYS,
    on_way: Callable[[], None] = lambda: None,
) -> tuple[Quantisation, ...]:
    """Quantise a float file of `write_onnx` statically in each way, and write the one that agrees best with it.

    A way that fails, as percentiles of an activation that hardly changes between images do, is left out.

    Args:
        calibration: (N, 3, H, W), training images in random order.
        judged: (M, 3, H, W), other training images, on which the answers are compared.
        ways: to try, min-max first.
        on_way: called before each way.

    Raises IgkdError where none can be had.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    wanted = OnnxStudent(source).logits(judged).argmax(axis=1)
    tried: list[tuple[Quantisation, Path]] = []
    why = ""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepared = folder / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        metadata = onnx.load(str(source)).metadata_props
        for number, way in enumerate(ways):
            on_way()
            file = folder / f"{number}.onnx"
            images = calibration if way.activations == "min-max" else calibration[: _percentile_images(calibration)]
            try:
                _quantise(prepared, file, way, images, cache=folder / f"{way.activations}.json")
                _finish(file, metadata)
                answers = OnnxStudent(file).logits(judged).argmax(axis=1)
            except Exception as error:  # NumPy's, of a histogram; and onnxruntime's, which have no common base
                why = first_line(error)
                _log.info("int8 %s with %s: %s", *way, why)
                continue
            agreement = float((answers == wanted).mean())
            made = Quantisation(
                **way._asdict(), calibrated_on=len(images), agreement=agreement, images=len(judged), kept=False
            )
            tried.append((made, file))
        if not tried:
            raise IgkdError(
                f"onnxruntime makes int8 of this network in no way ({why}); nothing was written; please report this "
                "with its version, and the study file"
            )
        best, kept = max(tried, key=lambda one: one[0].agreement)
        path.write_bytes(kept.read_bytes())
    return tuple(one.model_copy(update={"kept": one is best}) for one, _ in tried)


def _percentile_images(calibration: Images) -> int:
    pixels = int(np.prod(calibration.shape[2:]))
    return min(max(_PERCENTILE_PIXELS // pixels, _PERCENTILE_IMAGES[0]), _PERCENTILE_IMAGES[-1])


def _quantise(prepared: Path, path: Path, way: _Way, images: Images, *, cache: Path) -> None:
    """Write one way; the ranges of activations are found once for both kinds of weights."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        """Batches of the images; the strided calibration below asks for one after the other by number."""

        def __init__(self) -> None:
            self._left: Iterator[int] = iter(range(len(self)))

        def __len__(self) -> int:
            return math.ceil(len(images) / _BATCH)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(range(start_index, end_index))

        def get_next(self) -> dict[str, Any] | None:
            number = next(self._left, None)
            return None if number is None else {"images": images[number * _BATCH : (number + 1) * _BATCH]}

    with _quietly():
        quantize_static(
            str(prepared),
            str(path),
            Batches(),
            quant_format=QuantFormat.QDQ,
            per_channel=way.weights == "per channel",
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method={"min-max": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[
                way.activations
            ],
            extra_options={"CalibStridedMinMax": 1},  # of histograms too: each batch is let go before the next
            calibration_cache_path=cache,
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep back what onnxruntime tells of its work where our data goes, and what it warns of on the root logger.

    Scales per channel are not for every weight, which it says once for each layer normalisation of a transformer.
    """
    root, nothing = logging.getLogger(), lambda _: False
    root.addFilter(nothing)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(nothing)


def _finish(path: Path, metadata: Any) -> None:
    """Give a quantised file the metadata of its source, and take out the operator sets that it does not use."""
    import onnx

    model = onnx.load(str(path))
    del model.metadata_props[:]
    model.metadata_props.extend(metadata)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
