"""Views: the crop and flip of an image, named by (dy, dx, flip), so that maps and logits can follow the image."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Views(NamedTuple):
    """One view for each sample: the crop's corner in the padded image, then whether it is mirrored.

    `dy` and `dx` are int64 in [0, 2 * padding]; both at `padding`, with no flip, is the image itself.
    """

    dy: Tensor
    dx: Tensor
    flip: Tensor  # bool


def n_views(padding: int, horizontal_flip: bool) -> int:
    """Return how many different views there are."""
    return (2 * padding + 1) ** 2 * (2 if horizontal_flip else 1)


def views_from_index(index: Tensor, padding: int, horizontal_flip: bool) -> Views:
    """Return the views that int64 indices in [0, n_views) name, in the indices' own shape."""
    side = 2 * padding + 1
    within = index % (side * side)
    return Views(dy=within // side, dx=within % side, flip=index >= side * side)


def index_of(views: Views, padding: int, horizontal_flip: bool) -> Tensor:
    """Return the index of each view: the unflipped ones come first, row by row."""
    side = 2 * padding + 1
    return (views.flip * side + views.dy) * side + views.dx


def apply_views(x: Tensor, views: Views, padding: int) -> Tensor:
    """Return the views of a batch: padded with 0 on every side, cropped back to its size, then mirrored.

    Images and attribution maps go through here alike, which keeps them on top of each other. One gather for the whole
    batch; the result lies in memory with the channels last, since that is the order in which it is gathered. `x` is
    (B, C, H, W) of any dtype, with a view (B,) for each sample.
    """
    batch, _, height, width = x.shape
    samples, from_top, from_left = (torch.arange(length, device=x.device) for length in (batch, height, width))
    rows = views.dy[:, None] + from_top
    columns = views.dx[:, None] + torch.where(views.flip[:, None], width - 1 - from_left, from_left)
    padded = F.pad(x, (padding,) * 4)
    return padded[samples[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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
