"""Views: the crops of training images, each named by its number, so that maps and logits can follow the image."""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from igkd_hpo.distillation.draws import uniform
from igkd_hpo.distillation.mixing import NumberedMixtures

_RATIO = 4 / 3  # of a box's sides at most, where the image's are taken for equal


class Views(Protocol):
    """The views of all training images, `count` of each, by their numbers from 0 on."""

    @property
    def count(self) -> int:
        """Number of views of each image."""
        ...

    @property
    def mixed(self) -> NumberedMixtures | None:
        """What each view is mixed with; None where nothing is, or where every epoch draws that anew."""
        ...

    def cut(self, x: Tensor, rows: Tensor, numbers: Tensor) -> Tensor:
        """Return view `numbers[j]` of training image `rows[j]` as it shows `x[j]`, in the size of `x`.

        Images and attribution maps go through here alike, which keeps them on top of each other.

        Args:
            x: (B, C, H, W) of any dtype: what lies on the images, such as their pixels or maps.
            rows: int64 (B,), the images' numbers.
            numbers: int64 (B,) in [0, count).
        """
        ...

    def cut_from(self, x: Tensor, rows: Tensor, numbers: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the views as x shows them, in the size of x, which may be other than the images' height and width."""
        ...

    def to(self, device: torch.device) -> "Views":
        """Return the same views with their tensors on `device`."""
        ...


class Cropping(Protocol):
    """The settings that decide the views."""

    @property
    def crop_padding(self) -> int | None:
        """Pixels on each side, for views that are shifted; a validated study has a number."""
        ...

    @property
    def horizontal_flip(self) -> bool:
        """Whether some are mirrored."""
        ...

    @property
    def views(self) -> int | None:
        """Number of boxes of each image; None for views that are shifted."""
        ...

    @property
    def scale(self) -> tuple[float, float] | None:
        """Smallest and largest share of the image's area that a box has; there are none without `views`."""
        ...

    @property
    def mixed(self) -> float | None:
        """Share of the boxes that are mixed with another image's; None: no box is."""
        ...


def make_views(cropping: Cropping, digests: Tensor | None) -> Views:
    """Return the views that the settings ask for.

    Args:
        cropping: of a study or a recipe.
        digests: int64 (N,), a number for each training image that follows from its content; boxes need it, else
            ValueError.
    """
    if cropping.views is None or cropping.scale is None:
        return _shifted(cropping)
    if digests is None:
        raise ValueError(f"views is {cropping.views}, whose boxes are drawn from the images' digests; give them")
    mixed = NumberedMixtures.draw(digests, cropping.views, cropping.mixed) if cropping.mixed else None
    boxes = Boxes.draw(digests, cropping.views, cropping.scale, mirrored=cropping.horizontal_flip)
    return replace(boxes, mixed=mixed)


def count_views(cropping: Cropping) -> int:
    """Return how many views of each image there are."""
    return _shifted(cropping).count if cropping.views is None else cropping.views


def _shifted(cropping: Cropping) -> "ShiftedCrops":
    return ShiftedCrops(padding=cropping.crop_padding or 0, mirrored=cropping.horizontal_flip)


@dataclass(frozen=True)
class ShiftedCrops:
    """Every image padded with 0 on each side and cropped back to its size: a view for each place, mirrored or not.

    The unmirrored come first, row by row of the crop's place.

    Args:
        padding: in pixels.
        mirrored: whether each crop has a mirrored view too.
    """

    padding: int
    mirrored: bool

    @property
    def count(self) -> int:
        """Number of views of each image."""
        return self._places * (2 if self.mirrored else 1)

    @property
    def mixed(self) -> None:
        """None: there are too many of them for what a teacher says of mixtures to be made beforehand."""
        return None

    @property
    def _places(self) -> int:
        return (2 * self.padding + 1) ** 2

    def _corners(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the crops' first row and column in the padded image, int64, and which are mirrored."""
        place, side = numbers % self._places, 2 * self.padding + 1
        return place // side, place % side, numbers >= self._places

    def with_flip(self, numbers: Tensor, flip: Tensor) -> Tensor:
        """Return the views of the same crops that are mirrored where `flip`, bool in the numbers' shape, says so."""
        return numbers % self._places + flip * self._places

    def cut(self, x: Tensor, rows: Tensor, numbers: Tensor) -> Tensor:
        """Return the views, see `Views`: exact, in the dtype of `x`, by one gather for the whole batch.

        The result lies in memory with the channels last, since that is the order in which it is gathered.
        """
        batch, _, height, width = x.shape
        first_row, first_column, flip = self._corners(numbers)
        samples, from_top, from_left = (torch.arange(length, device=x.device) for length in (batch, height, width))
        down = first_row[:, None] + from_top
        right = first_column[:, None] + torch.where(flip[:, None], width - 1 - from_left, from_left)
        padded = F.pad(x, (self.padding,) * 4)
        return padded[samples[:, None, None], :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)

    def cut_from(self, x: Tensor, rows: Tensor, numbers: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the views, see `Views`: exact where x has the images' size, else in proportion, float32."""
        if tuple(x.shape[2:]) == image_size:
            return self.cut(x, rows, numbers)
        first_row, first_column, flip = self._corners(numbers)
        top, left = (first_row - self.padding) / image_size[0], (first_column - self.padding) / image_size[1]
        corners = torch.stack([top, left, torch.ones_like(top), torch.ones_like(top)], dim=1)
        return _cut_boxes(x, corners, flip, outside="zeros")

    def to(self, device: torch.device) -> "ShiftedCrops":
        """Return itself, which holds no tensors."""
        return self


@dataclass(frozen=True)
class Boxes:
    """Random resized crops, so many of each image: the same boxes whenever its views are made.

    So what a teacher says to them fits into a table, which a fresh draw in each epoch would not.

    Args:
        corners: float32 (N, count, 4): top, left, height and width, in shares of the image's sides.
        flips: bool (N, count).
        mixed: what each is mixed with, which `cut` does not do, since it cuts images and maps one by one.
    """

    corners: Tensor
    flips: Tensor
    mixed: NumberedMixtures | None = None

    @property
    def count(self) -> int:
        """Number of views of each image."""
        return self.corners.shape[1]

    @classmethod
    def draw(cls, digests: Tensor, count: int, scale: tuple[float, float], *, mirrored: bool) -> "Boxes":
        """Draw each image's boxes from its digest, int64 (N,), so that they do not depend on the other images.

        Area, ratio and place are drawn as torchvision's RandomResizedCrop does; a side beyond the image's ends there,
        where that draws again. With `mirrored`, half of the boxes are.

        Source: Szegedy et al. 2014, arXiv 1409.4842, section 6.
        """
        area, ratio, down, right, flip = uniform(digests, count, 5)
        area = scale[0] + (scale[1] - scale[0]) * area
        stretch = np.exp((2 * ratio - 1) * math.log(_RATIO) / 2)
        height, width = np.minimum(np.sqrt(area) / stretch, 1), np.minimum(np.sqrt(area) * stretch, 1)
        corners = np.stack([down * (1 - height), right * (1 - width), height, width], axis=2).astype(np.float32)
        return cls(torch.from_numpy(corners), torch.from_numpy(mirrored & (flip < 0.5)))

    def cut(self, x: Tensor, rows: Tensor, numbers: Tensor) -> Tensor:
        """Return the views, see `Views`, resized bilinearly, float32 in the range of `x`.

        Without antialiasing: what is cut out is enlarged.
        """
        return _cut_boxes(x, self.corners[rows, numbers], self.flips[rows, numbers], outside="border")

    def cut_from(self, x: Tensor, rows: Tensor, numbers: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the views, see `Views`: boxes are shares of the image, whatever its size."""
        return self.cut(x, rows, numbers)

    def to(self, device: torch.device) -> "Boxes":
        """Return the same boxes on `device`; what they are mixed with stays on the CPU, where plans are drawn."""
        return Boxes(self.corners.to(device), self.flips.to(device), self.mixed)


def _cut_boxes(x: Tensor, corners: Tensor, flip: Tensor, *, outside: str) -> Tensor:
    """Return boxes (B, 4) of x, mirrored where `flip`, in its own size, float32; beyond the edge is `outside`."""
    top, left, height, width = corners.unbind(dim=1)
    down, right = (_centres(length, x.device) for length in x.shape[2:])
    rows = top[:, None] + height[:, None] * down
    columns = left[:, None] + width[:, None] * torch.where(flip[:, None], 1 - right, right)
    shape = (len(x), x.shape[2], x.shape[3])
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=3)
    return F.grid_sample(x.float(), 2 * grid - 1, mode="bilinear", padding_mode=outside, align_corners=False)


def _centres(length: int, device: torch.device) -> Tensor:
    """Return the middles of so many pixels, in [0, 1]."""
    return (torch.arange(length, device=device) + 0.5) / length
