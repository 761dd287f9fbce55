"""1x1 convolutions as products of matrices, which a CPU computes sooner."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Pointwise(nn.Conv2d):
    """A 1x1 convolution that is one product of matrices where it learns, and its input lies in memory as one.

    Without gradients it stays a convolution: on a CPU with AVX2 a product's last bits depend on the row that an image
    has in its batch, so that a table of a teacher's answers would depend on the order in which it was asked.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return what the convolution would, but for rounding."""
        if torch.is_grad_enabled() and input.is_cpu and input.is_contiguous(memory_format=torch.channels_last):
            return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return super().forward(input)


def multiply_pointwise(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Let 1x1 convolutions be products of matrices wherever gradients are recorded on a CPU.

    Names, weights and state dict stay; layers get another class. Only torch's own `Conv2d` changes, no subclass and no
    layer with a parametrization, and none of a network that is not run in channels_last.

    On a 2.5 GHz Xeon with AVX512, one thread, a training step of MobileNet-V2 took 0.84 to 0.88 times as long at 8x8
    pixels and 0.98 at 32x32, one of `timm/lcnet_050` 0.92 at 96x96 (medians of 6 to 28 pairs).
    """
    if memory_format is not torch.channels_last:
        return
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _is_pointwise(layer):
            layer.__class__ = _Pointwise


def name_pointwise(device: torch.device, *, channels_last: bool) -> Literal["convolution", "matmul"]:
    """Return how 1x1 convolutions are computed in a training step on a device, which decides its last bits."""
    return "matmul" if device.type == "cpu" and channels_last else "convolution"


def _is_pointwise(layer: nn.Conv2d) -> bool:
    plain = ((1, 1), (1, 1), 1)
    return (layer.kernel_size, layer.stride, layer.groups) == plain and layer.padding in ((0, 0), "valid", "same")
