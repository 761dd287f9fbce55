"""A teacher's output: the logits in whatever it returns, and why it gives none, found by trying."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.distillation.evaluation import padded_batches
from igkd_hpo.distillation.models import Network, Resized, to_pixels
from igkd_hpo.distillation.teaching import TEACHER_BATCH
from igkd_hpo.errors import DataError, first_line

_SIZES = (224, 32, 28, 64, 96, 128, 256, 299, 384)  # that networks are made for, the likeliest first


def take_logits(body: nn.Module, inputs: tuple[Any, ...], output: object, *, num_classes: int) -> object:
    """Return the one tensor (N, num_classes) of an output that holds it, else the output as it is.

    Of several it is the one that is called `logits`. This is a forward hook: the network stays what it is.
    """
    if isinstance(output, Tensor):
        return output
    shape = (len(inputs[0]), num_classes)
    fitting = {name: part for name, part in _tensors_in(output) if part.shape == shape}
    return next(iter(fitting.values())) if len(fitting) == 1 else fitting.get("logits", output)


def _tensors_in(output: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a mapping, a sequence or an object with attributes, by their names there."""
    if isinstance(output, Mapping):
        parts: Iterable[tuple[object, object]] = output.items()
    elif isinstance(output, tuple | list):
        parts = zip(getattr(output, "_fields", range(len(output))), output, strict=True)
    else:
        parts = {"logits": getattr(output, "logits", None), **getattr(output, "__dict__", {})}.items()
    yield from ((str(name), part) for name, part in parts if isinstance(part, Tensor))


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"
    parts = ", ".join(f"{name} {tuple(part.shape)}" for name, part in _tensors_in(output))
    return f"{type(output).__name__} ({parts or 'no tensor'})"


def check_output(network: Network, dataset: Dataset, name: str, *, device: torch.device) -> None:
    """Run a network on a batch of training images as they come later.

    Args:
        name: what the study file calls it.

    Raises:
        DataError: it fails, or gives no float logits (N, classes); with the likely remedy.
    """
    batch, _ = next(padded_batches([dataset.train_images[:TEACHER_BATCH].to(device)], TEACHER_BATCH))
    pixels = to_pixels(batch)
    height, width = dataset.image_size
    try:
        with torch.no_grad():
            output: object = network.to(device)(pixels)
    except Exception as error:  # whatever somebody's network raises on an input that it is not made for
        raise DataError(
            f"the teacher {name} fails on images of {width}x{height} ({first_line(error)}); "
            f"{_remedy(network, pixels, dataset.num_classes)}"
        ) from error
    wanted = (len(pixels), dataset.num_classes)
    if isinstance(output, Tensor) and output.shape == wanted and output.is_floating_point():
        return
    raise DataError(
        f"the teacher {name} gives {_describe(output)} for {wanted[0]} images; "
        f"it must give logits {wanted}: {_advise(output, wanted)}"
    )


def _advise(output: object, wanted: tuple[int, int]) -> str:
    count, classes = wanted
    if not isinstance(output, Tensor):
        return "let it return that tensor alone"
    if output.shape in (wanted, (count,)):
        return "let it return the logits, and not the class"
    if output.shape[1:] == (1,):
        return "of one number z return torch.cat([torch.zeros_like(z), z], dim=1)"
    if output.ndim == len(wanted) and output.shape[0] == count:
        return f"it tells {output.shape[1]} classes apart and the dataset has {classes}; fine-tune it on these first"
    return "flatten them"


def _remedy(network: Network, pixels: Tensor, num_classes: int) -> str:
    """Find by trying what would let a network run that fails; an advice that does not help is worse than none."""

    def runs(network: nn.Module, pixels: Tensor) -> bool:
        try:
            with torch.no_grad():
                output = network(pixels)
        except Exception:
            return False
        return isinstance(output, Tensor) and output.shape == (len(pixels), num_classes)

    def resized(some: Tensor, size: int) -> Tensor:
        return F.interpolate(some, (size, size), mode="bilinear", antialias=True)

    if runs(network, pixels.contiguous()):
        return "its view() needs another order in memory: write reshape() or flatten(1) there"
    few, body = pixels[:2], network.body.body if isinstance(network.body, Resized) else network.body
    bare = Network(body, network.mean, network.std).to(pixels.device)
    for size in (0, *_SIZES):
        some = resized(few, size) if size else few
        if size and runs(bare, some):
            return f"set teacher.input_size: {size}"
        if runs(body, some.mean(dim=1, keepdim=True)):
            needed = f", and set teacher.input_size: {size}" if size else ""
            return f"it is made for images of one channel: begin its forward with x.mean(1, keepdim=True){needed}"
    types = {parameter.dtype for parameter in network.parameters()} - {torch.float32}
    if types and runs(network.float(), few):
        given = ", ".join(str(dtype).removeprefix("torch.") for dtype in types)
        return f"its weights are {given}, and the pixels float32: return the network as network.float()"
    return "run it in Python on a tensor (2, 3, height, width) to see where, and mend it"
