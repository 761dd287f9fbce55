"""Changes of the student's pixels alone, after its view was cut: the teacher and the maps do not hear of them."""

import torch
from torch import Tensor

_ALIKE = 8  # images of a batch of 64 that change alike: one by one, two changes of 96x96 pixels take twice as long
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, as ITU-R BT.601 weighs them


def cut_out(pixels: Tensor, places: Tensor, side: int) -> Tensor:
    """Return the pixels with one square of each image set to that image's mean colour.

    Args:
        pixels: float32 (B, 3, H, W) in [0, 1].
        places: float32 (B, 2) in [0, 1): where the square lies, down, then to the right; 0 is at the upper left, 1 at
            the lower right, always with the whole square inside the image.
        side: of the square, in pixels; at most the height and the width.

    Source: DeVries and Taylor 2017, arXiv 1708.04552, with squares that stay inside and no colour of the data set's.
    """
    height, width = pixels.shape[2:]
    top = (places[:, 0] * (height - side + 1)).long()[:, None]
    left = (places[:, 1] * (width - side + 1)).long()[:, None]
    y, x = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, pixels.mean(dim=(2, 3), keepdim=True), pixels)


def jitter_colors(pixels: Tensor, changes: Tensor) -> Tensor:
    """Return the pixels with another brightness, contrast and saturation each, in [0, 1].

    Args:
        pixels: float32 (B, 3, H, W) in [0, 1].
        changes: float32 (B, 3) in [-1, 1]: brightness is multiplied by 1 + the first; contrast, around the mean of the
            image's grey, by 1 + the second; saturation, around each pixel's grey, by 1 + the third. 0 changes nothing.

    Source: torchvision's ColorJitter, in this order and without hue.
    """
    brightness, contrast, saturation = (1 + changes[:, number, None, None, None] for number in range(3))
    bright = (pixels * brightness).clamp(0, 1)
    contrasted = torch.lerp(_grey(bright).mean(dim=(2, 3), keepdim=True), bright, contrast).clamp(0, 1)
    return torch.lerp(_grey(contrasted), contrasted, saturation).clamp(0, 1)


def rand_augment(pixels: Tensor, magnitude: int) -> Tensor:
    """Return the pixels after two random changes of torchvision's RandAugment, the same for each 8 of the batch.

    What is turned or moved is so with its overlay, and leaves black behind. Draws from torch's generator of the CPU.

    Args:
        pixels: float32 (B, 3, H, W) in [0, 1].
        magnitude: from 1 to 30.

    Source: Cubuk et al. 2019, arXiv 1909.13719.
    """
    from torchvision.transforms.v2 import RandAugment  # which few trainings need

    change = RandAugment(num_ops=2, magnitude=magnitude)
    return torch.cat([change(part) for part in torch.split(pixels, _ALIKE)])


def _grey(pixels: Tensor) -> Tensor:
    red, green, blue = (weight * pixels[:, number, None] for number, weight in enumerate(_LUMA))
    return red + green + blue
