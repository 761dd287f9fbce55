"""Images by their rows: a tensor, or whatever reads rows when they are asked for."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_AT_ONCE = 256  # images that are read together: 37 MiB of 224x224


class Images(Protocol):
    """Images uint8 (N, 3, H, W) in a fixed order, which need not be in memory; a tensor is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N, 3, H and W."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, rows: Tensor | slice | int, /) -> Tensor:
        """Return these images, (B, 3, H, W), or one of them, (3, H, W): the same bits each time."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Some of other images, of which nothing is read before it is asked for.

    Args:
        rows: int64 (N,), their numbers among the others.
    """

    images: Images
    rows: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """N, 3, H and W."""
        return (len(self.rows), *self.images.shape[1:])

    def __len__(self) -> int:
        """Return how many were chosen."""
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice | int, /) -> Tensor:
        """Return some of those that were chosen."""
        return self.images[self.rows[rows]]


def choose(images: Images, rows: Tensor) -> Images:
    """Return the images with these numbers, int64 (N,): a copy where they are in memory, else see `Chosen`."""
    return images[rows] if isinstance(images, Tensor) else Chosen(images, rows)


def bring(images: Images, device: torch.device) -> Tensor:
    """Return all images as a tensor on the device; of those that are not in memory a few at a time pass through it."""
    if isinstance(images, Tensor):
        return images.to(device)
    brought = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for rows in torch.split(torch.arange(len(images)), _AT_ONCE):
        brought[rows[0] : rows[-1] + 1] = images[rows].to(device)
    return brought
