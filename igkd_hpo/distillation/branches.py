"""A convolution as the sum of parallel branches, which are added up before an image is seen.

Source: the branches are those of RepVGG, Ding et al. 2021, arXiv 2101.03697; that they are linear and merged in each
step follows ExpandNets, Guo et al. 2020, arXiv 1811.10495, and a scale in place of the batch normalisation of each
branch OREPA, Hu et al. 2022, arXiv 2204.00826. Unlike there, a student begins as if it had none: the second branch is
0, so that pretrained weights stay what they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Branches(nn.Module):
    """The parametrization of a convolution's weight by two branches, or three, see torch.nn.utils.parametrize.

    W = s_1 K + s_2 pad(P) + s_3 E, with K of the kernel's size, P of 1x1, which lies in its middle, and E what leaves
    an image alone: it is there where the layer gives as many channels as it is given, and has stride 1. The scales s
    are one number for each channel that it gives.
    """

    identity: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        """Take a convolution whose kernel has a middle and is larger than 1x1; another raises ValueError."""
        super().__init__()
        height, width = layer.kernel_size
        if not has_middle((height, width)):
            raise ValueError(f"a kernel of {height}x{width} has no middle beside which there is something")
        self._pad = (width // 2, width // 2, height // 2, height // 2)
        identity = None
        if layer.in_channels == layer.out_channels and layer.stride == (1, 1):
            per_group = layer.weight.shape[1]
            identity = torch.eye(per_group).repeat(layer.groups, 1)[:, :, None, None]
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, kernel: Tensor, scale: Tensor, point: Tensor, point_scale: Tensor, *own: Tensor) -> Tensor:
        """Return the sum of the branches."""
        middle = _by_channel(point_scale) * point[:, :, None, None]
        if self.identity is not None:
            middle = middle + _by_channel(own[0]) * self.identity
        return _by_channel(scale) * kernel + F.pad(middle, self._pad)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the branches of which the first is the weight, and the others add nothing yet."""
        ones = weight.new_ones(len(weight))
        own = () if self.identity is None else (torch.zeros_like(ones),)
        return (weight.detach().clone(), ones, weight.new_zeros(weight.shape[:2]), ones.clone(), *own)


def has_middle(kernel_size: tuple[int, ...]) -> bool:
    """Return whether a kernel is larger than 1x1 and has a middle."""
    return all(side % 2 for side in kernel_size) and max(kernel_size) > 1


def _by_channel(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]
