"""Networks: MobileNet-V2 for small images, shortened from its end, and a wrapper that owns the normalisation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2

# Rows of (expansion, channels, blocks, first stride). Against the ImageNet form, the stem and the 24-channel stage keep
# the resolution, since 32x32 images have none to give away.
_SETTING = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
_BLOCKS = 19  # the stem, the 17 blocks of the setting, and the last 1x1 convolution


def mobilenet_v2(*, num_classes: int, width: float = 1.0, layers_removed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Return a MobileNet-V2 for small images, without its last `layers_removed` blocks, freshly initialised.

    Takes float32 (B, 3, H, W) of any H and W from 1 up, gives logits (B, num_classes). State-dict keys are
    `features.<block>.*` and `classifier.1.*`. Weights are drawn from torch's global generator.

    Args:
        num_classes: 2 or more.
        width: above 0; multiplies every channel count, which is then rounded to a multiple of 8.
        layers_removed: 0 to 17; 5 of the full-width network leaves 543,498 parameters for 10 classes.
        dropout: probability before the last layer, in [0, 1).

    Raises:
        ValueError: an argument outside its range.

    Source: Sandler et al. 2018, arXiv 1801.04381; shortened as in arXiv 2503.13008.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs 2 or more")
    if not width > 0:
        raise ValueError(f"width is {width}; it must be above 0")
    if not 0 <= layers_removed <= _BLOCKS - 2:
        raise ValueError(f"layers_removed is {layers_removed}; it must be 0 to {_BLOCKS - 2}")
    network = MobileNetV2(num_classes=num_classes, width_mult=width, inverted_residual_setting=_SETTING)
    network.features[0][0].stride = (1, 1)
    network.features = network.features[: _BLOCKS - layers_removed]
    head = nn.Linear(network.features[-1].out_channels, num_classes)
    nn.init.normal_(head.weight, std=0.01)  # torchvision's own initialisation of the layer that this one replaces
    nn.init.zeros_(head.bias)
    network.classifier = nn.Sequential(nn.Dropout(dropout), head)
    body: nn.Module = network
    return body


class Network(nn.Module):
    """A classifier of pixels: the normalisation it was made for, then the body.

    What people keep is `network.body.state_dict()`; mean and standard deviation are buffers of shape (1, 3, 1, 1) that
    are not part of any state dict, so that state dicts from elsewhere load with `strict=True`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Wrap `body`; `mean` and `std` are three numbers each, in [0, 1] pixels, `std` above 0.

        Raises:
            ValueError: not three numbers, or a standard deviation that is not above 0.
        """
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


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers the module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def to_pixels(images: Tensor, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
    """Return uint8 images (B, 3, H, W) as float32 pixels in [0, 1]: the one way it is done everywhere."""
    return images.to(torch.float32, memory_format=memory_format).div_(255)
