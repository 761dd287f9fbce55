"""ONNX files of a network, in float32 and in int8. Raw camera pixels go in: the graph does the normalisation."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

    from igkd_hpo.distillation.models import Network

OPSET = 20
INPUT = "uint8 RGB pixels (N, 3, H, W), 0 to 255; scaling and normalisation are inside"


def write_onnx(
    network: "Network", path: Path, *, class_names: tuple[str, ...], image_size: tuple[int, int], bits: int | None
) -> None:
    """Write a network in evaluation mode, on the CPU: `images` of any number in, `logits` out.

    `bits` is the study file's, for who makes 8 bits of 16: `predict` does as the data set did.
    What torch notes on each node, paths of this machine's source files among it, is left out.
    """
    import onnx
    import torch
    from torch import Tensor, nn

    from igkd_hpo.distillation.models import to_pixels

    class FromBytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(to_pixels(images))
            return logits

    # Contiguous: ONNX knows no other layout, and would carry permutations.
    network.to(memory_format=torch.contiguous_format)
    example = torch.zeros(2, 3, *image_size, dtype=torch.uint8)
    with redirect_stdout(io.StringIO()):  # it prints its progress where our data goes
        program = torch.onnx.export(
            FromBytes().eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None, "torch returns a program where dynamo is asked for"
    model = program.model_proto
    _describe(model, class_names=class_names, image_size=image_size, bits=bits)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_int8(source: Path, path: Path, images: NDArray[np.uint8]) -> None:
    """Quantise a float file of `write_onnx` statically: weights per channel, activations by what `images` cause.

    Args:
        images: (N, 3, H, W) to calibrate with; of the training split.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = iter([{"images": images[start : start + 64]} for start in range(0, len(images), 64)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    prepared = path.with_suffix(".prepared")
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Batches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        prepared.unlink(missing_ok=True)
    model = onnx.load(str(path))
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(str(source)).metadata_props)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _describe(
    model: "onnx.ModelProto", *, class_names: tuple[str, ...], image_size: tuple[int, int], bits: int | None
) -> None:
    import igkd_hpo

    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "igkd-hpo", igkd_hpo.__version__
    model.metadata_props.add(key="classes", value=json.dumps(class_names))
    model.metadata_props.add(key="image_size", value=json.dumps(image_size))
    if bits is not None:
        model.metadata_props.add(key="bits", value=str(bits))
    model.metadata_props.add(key="input", value=INPUT)
    model.metadata_props.add(key="output", value="logits (N, classes)")
