"""The ONNX file of a network, in float32. Raw camera pixels go in: the graph does the normalisation."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.errors import IgkdError, UsageError, first_line
from igkd_hpo.image_fit import Fit

if TYPE_CHECKING:
    import onnx

    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network

OPSET = 20
# torch has its operators from 18 on: asked for an older opset it converts, often in vain, and then writes 18. Its
# exporter is made for opsets up to 23.
OPSETS = range(18, 24)
INPUT = "uint8 RGB pixels (N, 3, H, W), 0 to 255; scaling and normalisation are inside"


@dataclass(frozen=True, kw_only=True)
class InputFacts:
    """Tell of a network's images what who shows it others must know.

    Args:
        class_names: in the order of the logits.
        image_size: height and width, in pixels.
        bits, fit: as the study file has them, for who makes 8 bits of 16 and squares.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    bits: int | None
    fit: Fit


def gather_facts(assets: "Assets") -> InputFacts:
    """Return what a file of a study's student tells of its images: `predict` does as the data set did."""
    dataset, described = assets.dataset, assets.study.dataset
    return InputFacts(
        class_names=dataset.class_names, image_size=dataset.image_size, bits=described.bits, fit=described.fit
    )


def check_opset(opset: int) -> None:
    """Raise UsageError for a version of ONNX's operators that torch does not write."""
    if opset not in OPSETS:
        raise UsageError(f"opset is {opset}, which torch does not write; take {OPSETS[0]} to {OPSETS[-1]}")


def write_onnx(network: "Network", path: Path, facts: InputFacts, *, opset: int = OPSET) -> None:
    """Write a network in evaluation mode, on the CPU: `images` of any number in, `logits` out.

    What torch notes on each node, paths of this machine's source files among it, is left out.

    Args:
        opset: one of OPSETS.

    Raises:
        IgkdError: the network cannot be written in this opset.
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
    example = torch.zeros(2, 3, *facts.image_size, dtype=torch.uint8)
    try:
        with redirect_stdout(io.StringIO()):  # it prints its progress where our data goes
            program = torch.onnx.export(
                FromBytes().eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # of torch's several steps, and of the network's code
        raise IgkdError(
            f"torch cannot write this network as ONNX ({first_line(error.__cause__ or error)}); let its forward decide "
            "nothing by the numbers in a tensor, and take any number of images; its study file and checkpoint remain"
        ) from error
    assert program is not None, "torch returns a program where dynamo is asked for"
    model = program.model_proto
    (written,) = (each.version for each in model.opset_import if each.domain == "")
    if written != opset:
        raise IgkdError(f"torch writes this network in opset {written}, not {opset}; give --opset {written}")
    _describe(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _describe(model: "onnx.ModelProto", facts: InputFacts) -> None:
    import igkd_hpo

    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "igkd-hpo", igkd_hpo.__version__
    model.metadata_props.add(key="classes", value=json.dumps(facts.class_names))
    model.metadata_props.add(key="image_size", value=json.dumps(facts.image_size))
    if facts.bits is not None:
        model.metadata_props.add(key="bits", value=str(facts.bits))
    if facts.fit != "squeeze":
        model.metadata_props.add(key="fit", value=json.dumps(facts.fit))
    model.metadata_props.add(key="input", value=INPUT)
    model.metadata_props.add(key="output", value="logits (N, classes)")
