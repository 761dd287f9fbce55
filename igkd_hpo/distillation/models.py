"""A network that owns its normalisation, and the helpers that serve every one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Network(nn.Module):
    """A classifier of pixels: the normalisation it was made for, then the body.

    People keep `network.body.state_dict()`; mean and standard deviation are buffers of shape (1, 3, 1, 1) that
    are not part of any state dict, so that state dicts from elsewhere load with `strict=True`.
    """

    mean: Tensor
    std: Tensor
    memory_format: torch.memory_format = torch.channels_last
    """Layout of the pixels that it is evaluated on; some networks of others take no other than contiguous ones."""

    def __init__(self, body: nn.Module, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Wrap `body`; `mean` and `std` are three numbers each, in [0, 1] pixels, `std` above 0, else ValueError."""
        super().__init__()
        self.body = body
        for name, values in (("mean", mean), ("std", std)):
            numbers = torch.as_tensor(values, dtype=torch.float32)
            if numbers.numel() != 3:
                raise ValueError(f"{name} has {numbers.numel()} numbers; it needs one per colour, 3")
            self.register_buffer(name, numbers.reshape(1, 3, 1, 1).clone(), persistent=False)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std is {self.std.flatten().tolist()}; every number must be above 0")

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, K) of float pixels (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.body((pixels - self.mean) / self.std)
        return logits


class Resized(nn.Module):
    """A body behind a resizing of its input to a square: bilinear with antialias, so gradients pass through it."""

    def __init__(self, body: nn.Module, size: int) -> None:
        super().__init__()
        self.body = body
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of (B, 3, H, W), whatever H and W are."""
        resized = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.body(resized)
        return logits


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers the module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def to_pixels(images: Tensor, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
    """Return uint8 images (B, 3, H, W) as float32 pixels in [0, 1]: the one way it is done everywhere."""
    return images.to(torch.float32, memory_format=memory_format).div_(255)
