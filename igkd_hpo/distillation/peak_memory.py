"""Memory that the activations of one image need at once, counted from the operations of a forward pass.

What a device keeps in its arena while it runs a network layer after layer: the idea of the memory planner of TensorFlow
Lite for microcontrollers (David et al. 2021, arXiv 2010.08678) and of MCUNet (Lin et al. 2020, arXiv 2007.10319). It is
a lower bound for a runtime of that kind: without the scratch buffers of its kernels, and without fragments.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from igkd_hpo.distillation.evaluation import evaluating

# Besides what torch calls pointwise: every number of the output follows from the one in its place.
_IN_PLACE = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "hardswish", "_prelu_kernel"})
_COPIES = frozenset({"clone"})  # pointwise by torch's book, and asked for where the layout changes


class _Operation(NamedTuple):
    """One operation that has to do with the image: the buffers that it reads, by number, and those that it makes."""

    reads: frozenset[int]
    makes: frozenset[int]
    in_place: bool


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Recorder of a forward pass; a buffer is the memory that a tensor and all views of it share."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: list[int] = []
        self.operations: list[_Operation] = []
        # A weak reference keeps the address of a buffer from being given to another, and lets go of the numbers in it.
        self._known: dict[StorageWeakRef, int] = {}
        self.add(image)

    def add(self, tensor: Tensor) -> int:
        """Number a tensor's buffer, a new one if it was not seen before."""
        reference = _refer(tensor)
        if reference not in self._known:
            self._known[reference] = len(self.sizes)
            self.sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return self._known[reference]

    def find(self, values: Any) -> list[int]:
        """Return the buffers of the tensors in a nest of values that follow from the image."""
        references = map(_refer, _tensors(values))
        return [self._known[reference] for reference in references if reference in self._known]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        reads = frozenset(self.find((args, kwargs)))
        if reads:  # else it follows from weights alone, and can be computed once for all images
            before, name = len(self.sizes), func.overloadpacket.__name__
            makes = frozenset(number for tensor in _tensors(result) if (number := self.add(tensor)) >= before)
            pointwise = torch.Tag.pointwise in func.tags and name not in _COPIES
            self.operations.append(_Operation(reads, makes, in_place=pointwise or name in _IN_PLACE))
        return result


def count_peak_activations(module: nn.Module, image_size: tuple[int, int]) -> int:
    """Return how many numbers of one image (3, H, W) a network has to hold at once: image, activations and logits.

    The operations run in PyTorch's order, on the module's device. An activation is held from the operation that makes
    it to the last that reads it; views take nothing, and batch normalisation and pointwise operations write into the
    place of an input that nobody reads any more. Attention that torch runs as one operation counts as one.
    """
    device = next(module.parameters()).device
    image = torch.zeros(1, 3, *image_size, device=device)
    recorder = _Recorder(image)
    with evaluating(module), recorder:
        logits = module(image)
    return _largest_sum(recorder, recorder.find(logits))


def _largest_sum(recorder: _Recorder, results: list[int]) -> int:
    operations, sizes = recorder.operations, recorder.sizes
    last = {number: at for at, operation in enumerate(operations) for number in operation.reads}
    last |= dict.fromkeys(results, len(operations))
    held = peak = sizes[0]
    for at, (reads, makes, in_place) in enumerate(operations):
        made = [sizes[number] for number in makes if number in last]  # what nobody reads is not made
        freed = [sizes[number] for number in reads if last[number] == at]
        held += sum(made)
        peak = max(peak, held - sum(size for size in made if in_place and size in freed))
        held -= sum(freed)
    return peak


def _refer(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))
