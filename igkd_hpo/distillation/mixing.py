"""Mixtures: samples of which another image takes a part, with all that is known of it.

Pixels and maps are mixed alike, labels by the images' shares, and the teacher is asked about what it is shown: the
mixture itself. A sample's own image always has half of it or more.

The other image is one of the same batch, drawn in each epoch, or belongs to a view's number for good, so that a table
holds what the teacher says of the mixture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from igkd_hpo.distillation.draws import uniform
from igkd_hpo.distillation.recipe import Recipe


class MixturePlan(NamedTuple):
    """How samples are mixed, float32, any number of leading dimensions."""

    blends: Tensor  # (...,) in [1/2, 1]: the own image's share of every pixel
    sides: Tensor  # (...,) in [0, 0.71): of the box that shows the other image, in shares of the image's
    places: Tensor  # (..., 2) in [0, 1): where that box lies, down, then to the right


def draw_mixtures(recipe: Recipe, steps: int, batch: int, generator: torch.Generator) -> MixturePlan:
    """Draw the mixtures of an epoch, (steps, batch).

    With probability `mixup` the images are blended, by a share that is uniform in [1/2, 1]; with `cutmix` the other one
    has a box of so much of the area, in the image's own proportions; where these add up to more than 1, each in
    proportion.

    Source: Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019, arXiv 1905.04899, with boxes that stay inside.
    """
    kinds, shares, down, right = torch.rand(4, steps, batch, generator=generator)
    most = max(1.0, recipe.mixup + recipe.cutmix)
    blended = kinds < recipe.mixup / most
    boxed = ~blended & (kinds < (recipe.mixup + recipe.cutmix) / most)
    own = 1 - shares / 2
    return MixturePlan(
        blends=torch.where(blended, own, 1.0),
        sides=torch.where(boxed, (1 - own).sqrt(), 0.0),
        places=torch.stack([down, right], dim=2),
    )


class Company(NamedTuple):
    """The images that others are mixed with, int64, any number of leading dimensions."""

    rows: Tensor  # of training images
    numbers: Tensor  # of their views


@dataclass(frozen=True)
class NumberedMixtures:
    """Mixtures that belong to the views of images for good: all tensors are (N, V), on the CPU, where plans are drawn.

    The other image is shown in one of its own views, unmixed.
    """

    company: Company
    plan: MixturePlan

    @classmethod
    def draw(cls, digests: Tensor, count: int, share: float) -> "NumberedMixtures":
        """Draw for `count` views of each image, from its digest, int64 (N,), which of N it is mixed with, and how.

        A view is mixed with probability `share`: half of the mixtures are blends, the others have a box, both as
        `draw_mixtures` makes them.
        """
        drawn = uniform(digests, count, 6, stream=1)
        mixed, other, number, shares, down, right = (torch.from_numpy(part) for part in drawn)
        own = (1 - shares / 2).float()
        return cls(
            Company((other * len(digests)).long(), (number * count).long()),
            MixturePlan(
                blends=torch.where(mixed < share / 2, own, 1.0),
                sides=torch.where((mixed >= share / 2) & (mixed < share), (1 - own).sqrt(), 0.0),
                places=torch.stack([down, right], dim=2).float(),
            ),
        )

    def of(self, rows: Tensor, numbers: Tensor) -> tuple[Company, MixturePlan]:
        """Return what views `numbers` of the images `rows`, int64 of one shape, on the CPU, are mixed with, and how."""
        at = rows, numbers
        return Company(*(part[at] for part in self.company)), MixturePlan(*(part[at] for part in self.plan))


class Mixtures:
    """The mixtures of one batch: sample j shows its own image and that of sample B - 1 - j, or one that is not in it.

    `own` is float32 (B, 1, H, W): the own image's share of each pixel, 1 all over where nothing is mixed; `shares` is
    its mean, (B,): the own label's share.
    """

    def __init__(self, plan: MixturePlan, size: tuple[int, int], labels: Tensor | None = None) -> None:
        """Take the plan of one step, (B,), and the images' height and width.

        `labels`, int64 (B,): of the other images, where these are not in the batch.
        """
        self.plan = plan
        self.labels = labels
        rows, columns = (_within(plan.sides, plan.places[:, axis], length) for axis, length in enumerate(size))
        box = rows[:, :, None] & columns[:, None, :]
        self.own = torch.where(box, 0.0, plan.blends[:, None, None])[:, None]
        self.shares = self.own.mean(dim=(1, 2, 3))

    def at(self, size: tuple[int, int]) -> "Mixtures":
        """Return the same mixtures of the same images in another size; their boxes are rounded to its pixels."""
        return Mixtures(self.plan, size, self.labels)

    def mix(self, x: Tensor) -> Tensor:
        """Return what lies on the images, float32, each mixed with its other, (B, C, H, W).

        x is (B, C, H, W); or, where the others are not in the batch, (2B, C, H, W): its images, then these.
        """
        own, other = (x, x.flip(0)) if self.labels is None else x.chunk(2)
        return torch.lerp(other, own, self.own)

    def mix_losses(self, of_each: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """Return the losses (B,) for both labels, by their shares; `of_each` makes those for labels (B,)."""
        others = labels.flip(0) if self.labels is None else self.labels
        return torch.lerp(of_each(others), of_each(labels), self.shares)


def _within(sides: Tensor, places: Tensor, length: int) -> Tensor:
    """Return which pixels of so many lie in the boxes, along one side of the image, bool (B, length)."""
    side = (sides * length).round()[:, None]
    first = (places[:, None] * (length - side + 1)).floor()
    place = torch.arange(length, device=sides.device)
    return (place >= first) & (place < first + side)
