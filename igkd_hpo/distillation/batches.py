"""The samples of a training: the data, one epoch's plan of it, and the batches that the plan makes of the data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from igkd_hpo.distillation.augmentation import cut_out, jitter_colors, rand_augment
from igkd_hpo.distillation.images import Images
from igkd_hpo.distillation.mixing import Company, MixturePlan, Mixtures, draw_mixtures
from igkd_hpo.distillation.models import to_pixels
from igkd_hpo.distillation.overlay import normalize_maps, overlay
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.views import ShiftedCrops, Views

# The purposes of `fixed_seed`: each draws from its own stream, so that one does not change another.
_PARITIES, MAPS, LOGITS = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The images to train on and those to validate on; row i of every training tensor belongs to training image i."""

    images: Images  # uint8 (N, 3, H, W)
    labels: Tensor  # int64 (N,)
    maps: Tensor | None  # float (N, H, W), 0 or above; None where nothing is overlaid
    validation_images: Images  # uint8 (M, 3, H, W)
    validation_labels: Tensor  # int64 (M,)
    shown_images: Images | None = None  # uint8 (N, 3, H', W'): what the teacher sees of them; None: the images
    digests: Tensor | None = None  # int64 (N,), of each image's content: boxes are drawn from them
    maps_follow_views: bool = True  # whether a map is cropped and mirrored with its image


class EpochPlan(NamedTuple):
    """All the randomness of one epoch, drawn at its start; tensors are (steps, B)."""

    rows: Tensor  # int64
    numbers: Tensor  # int64: of the rows' views
    strengths: Tensor  # float32; 0 for the samples that get no overlay
    exponents: Tensor  # float32 in [1, 2]
    overlay_mode: str = "blend"
    cutout: int = 0  # side of the square that is cut out, in pixels
    holes: Tensor | None = None  # float32 (steps, B, 2) in [0, 1): where it lies, see `cut_out`; None where cutout is 0
    mixtures: MixturePlan | None = None  # None where nothing is mixed
    colors: Tensor | None = None  # float32 (steps, B, 3), see `jitter_colors`; None where color_jitter is 0
    rand_augment: int = 0  # magnitude, see `rand_augment`, which draws from torch's own generator
    company: Company | None = None  # what the samples are mixed with, where that is not in the batch

    @property
    def read(self) -> Tensor:
        """The rows that each step needs, int64 (steps, B), or (steps, 2B) with those that samples are mixed with."""
        return self.rows if self.company is None else torch.cat([self.rows, self.company.rows], dim=1)

    def to(self, device: torch.device) -> "EpochPlan":
        """Return the plan with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def only(self, step: int) -> "EpochPlan":
        """Return the plan of an epoch that has this one step, in memory of its own."""
        return self._each(lambda tensor: tensor[step : step + 1].clone())

    def copy_step(self, plan: "EpochPlan", step: int) -> None:
        """Overwrite this plan of one step with a step of another."""
        for mine, new in zip(self._tensors(), plan._tensors(), strict=True):
            mine.copy_(new[step : step + 1])

    def _tensors(self) -> list[Tensor]:
        optional = [part for part in (self.holes, self.colors) if part is not None]
        mixed = *(self.mixtures or ()), *(self.company or ())
        return [self.rows, self.numbers, self.strengths, self.exponents, *optional, *mixed]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "EpochPlan":
        return self._replace(
            rows=change(self.rows),
            numbers=change(self.numbers),
            strengths=change(self.strengths),
            exponents=change(self.exponents),
            holes=None if self.holes is None else change(self.holes),
            mixtures=None if self.mixtures is None else MixturePlan(*map(change, self.mixtures)),
            colors=None if self.colors is None else change(self.colors),
            company=None if self.company is None else Company(*map(change, self.company)),
        )


class Samples(NamedTuple):
    """One step's images and maps as they are kept: element j of every tensor belongs to the image `rows[j]`.

    Where samples are mixed with images that are not in the batch, R is 2B, and these come after the batch's own.
    """

    images: Tensor  # uint8 (R, 3, H, W)
    maps: Tensor | None = None  # float (R, H, W)
    shown: Tensor | None = None  # uint8 (R, 3, H', W')


class Batch(NamedTuple):
    """One step's samples: element j of every tensor belongs to the image `rows[j]` in its view `numbers[j]`."""

    rows: Tensor  # int64 (B,)
    numbers: Tensor  # int64 (B,)
    labels: Tensor  # int64 (B,)
    pixels: Tensor  # float32 (B, 3, H, W): the clean view, mixed or not; what the teacher sees: `shown_pixels`
    maps: Tensor | None  # float32 (B, H, W) in [0, 1]: the map in the same view, mixed likewise
    overlaid: Tensor  # float32 (B, 3, H, W): the student's view, other colours and squares too
    samples: Samples  # what all of these were made of
    mixtures: Mixtures | None = None
    company: Company | None = None  # what the samples are mixed with, where that is not in the batch

    @property
    def cut(self) -> tuple[Tensor, Tensor]:
        """The rows and view numbers of all that is in `samples`, int64 (R,)."""
        return _all_of(self.rows, self.numbers, self.company)


def _all_of(rows: Tensor, numbers: Tensor, company: Company | None) -> tuple[Tensor, Tensor]:
    if company is None:
        return rows, numbers
    return torch.cat([rows, company.rows]), torch.cat([numbers, company.numbers])


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch's randomness: any epoch can be begun without those before it."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


def fixed_seed(seed: int, purpose: int) -> int:
    """Return the seed of a purpose that draws once for a training; purposes count from 1."""
    return int(np.random.SeedSequence((seed, 0, purpose)).generate_state(1, np.uint64)[0])


def draw_plan(recipe: Recipe, views: Views, n_images: int, epoch: int) -> EpochPlan:
    """Draw the order, views and overlays of one epoch, on the CPU, so that every kind of device gets the same ones.

    Every epoch has ceil(N / B) steps of min(B, N) samples: a permutation, filled up from its own start. Order and views
    are drawn first, then overlays, then the rest, so that trainings that differ only in what comes later see the same
    samples in the same views. With alternating flips the crops are the same too, and an image is mirrored in every
    second epoch: about half of the images in the odd ones, the others in the even ones.
    """
    generator = torch.Generator().manual_seed(epoch_seed(recipe.seed, epoch))
    batch = min(recipe.batch_size, n_images)
    steps = math.ceil(n_images / batch)
    order = torch.randperm(n_images, generator=generator)
    rows = torch.cat([order, order])[: steps * batch].reshape(steps, batch)
    numbers = torch.randint(views.count, (steps, batch), generator=generator)
    chosen = torch.rand(steps, batch, generator=generator) < recipe.overlay_probability
    exponents = 2 ** torch.rand(steps, batch, generator=generator)
    if recipe.flip == "alternating" and recipe.horizontal_flip and isinstance(views, ShiftedCrops):
        once = torch.Generator().manual_seed(fixed_seed(recipe.seed, _PARITIES))
        parities = torch.randint(2, (n_images,), generator=once)
        numbers = views.with_flip(numbers, (parities[rows] + epoch) % 2 == 1)
    company = mixtures = None
    if views.mixed is not None:
        company, mixtures = views.mixed.of(rows, numbers)
    return EpochPlan(
        rows=rows,
        numbers=numbers,
        strengths=chosen * recipe.overlay_strength,
        exponents=exponents,
        overlay_mode=recipe.overlay_mode,
        cutout=recipe.cutout,
        holes=torch.rand(steps, batch, 2, generator=generator) if recipe.cutout > 0 else None,
        mixtures=draw_mixtures(recipe, steps, batch, generator) if recipe.mixes else mixtures,
        colors=_color_changes(recipe.color_jitter, steps, batch, generator) if recipe.color_jitter > 0 else None,
        rand_augment=recipe.rand_augment,
        company=company,
    )


def shown_pixels(data: TrainingData, views: Views, batch: Batch) -> Tensor:
    """Return what the teacher sees of a batch, float32 (B, 3, H', W'): its pixels, or the same at its own size."""
    if batch.samples.shown is None:
        return batch.pixels
    pixels = _in_size_of(data, batch.samples.shown, views, *batch.cut)
    return pixels if batch.mixtures is None else batch.mixtures.at(_size(pixels)).mix(pixels)


def shown_view(data: TrainingData, views: Views, rows: Tensor, numbers: Tensor) -> Tensor:
    """Return views of images as the teacher sees them, float32 pixels in [0, 1] (B, 3, H', W').

    They are mixed where that belongs to their numbers, and not where each epoch draws it.

    Args:
        data: of its images, what the teacher sees.
        views: on the device of the result.
        rows: int64 (B,), the images' numbers.
        numbers: int64 (B,) in [0, count).
    """
    shown = data.images if data.shown_images is None else data.shown_images
    if views.mixed is None:
        return _in_size_of(data, shown[rows], views, rows, numbers)
    company, plan = views.mixed.of(rows.cpu(), numbers.cpu())
    company = Company(*(part.to(rows.device) for part in company))
    every = _all_of(rows, numbers, company)
    pixels = _in_size_of(data, shown[every[0]], views, *every)
    plan = MixturePlan(*(part.to(pixels.device) for part in plan))
    return Mixtures(plan, _size(pixels), data.labels[company.rows]).mix(pixels)


def _in_size_of(data: TrainingData, shown: Tensor, views: Views, rows: Tensor, numbers: Tensor) -> Tensor:
    height, width = data.images.shape[2:]
    return to_pixels(views.cut_from(shown, rows, numbers, (height, width)), torch.channels_last)


def _size(pixels: Tensor) -> tuple[int, int]:
    height, width = pixels.shape[2:]
    return height, width


def _color_changes(most: float, steps: int, batch: int, generator: torch.Generator) -> Tensor:
    return most * (2 * torch.rand(steps, batch, 3, generator=generator) - 1)


def raw_maps(data: TrainingData, views: Views, batch: Batch) -> Tensor:
    """Return the maps of a batch in its views as they were made, float32 (B, H, W); the data must have maps."""
    maps = batch.samples.maps
    assert maps is not None, "the training checks that they are there where they are wanted"
    return _in_view(maps.float(), data, views, *batch.cut, batch.mixtures)


def _in_view(
    maps: Tensor, data: TrainingData, views: Views, rows: Tensor, numbers: Tensor, mixtures: Mixtures | None
) -> Tensor:
    if data.maps_follow_views:
        maps = views.cut(maps[:, None], rows, numbers)[:, 0]
    return maps if mixtures is None else mixtures.mix(maps[:, None])[:, 0]


def read_samples(data: TrainingData, rows: Tensor) -> Samples:
    """Gather what a step needs of the images `rows`, int64 (B,), where the data lie."""
    return Samples(
        images=data.images[rows],
        maps=None if data.maps is None else data.maps[rows],
        shown=None if data.shown_images is None else data.shown_images[rows],
    )


def make_batch(
    data: TrainingData,
    views: Views,
    plan: EpochPlan,
    step: int,
    memory_format: torch.memory_format,
    samples: Samples | None = None,
) -> Batch:
    """Make one step's batch; images and maps go through the same views, and only the student's change further.

    `samples`: of the step, where they were read before, see `read_samples`.
    """
    rows, numbers = plan.rows[step], plan.numbers[step]
    company = None if plan.company is None else Company(*(part[step] for part in plan.company))
    every = _all_of(rows, numbers, company)
    samples = samples or read_samples(data, every[0])
    pixels = to_pixels(views.cut(samples.images, *every), memory_format)
    mixtures = None
    if plan.mixtures is not None:
        others = None if company is None else data.labels[company.rows]
        mixtures = Mixtures(MixturePlan(*(part[step] for part in plan.mixtures)), _size(pixels), others)
        pixels = mixtures.mix(pixels)
    maps = None
    seen = pixels if plan.colors is None else jitter_colors(pixels, plan.colors[step])
    if samples.maps is not None:
        exponents = plan.exponents[step].repeat(
            len(samples.maps) // len(rows)
        )  # the other image's map has its sample's
        maps = normalize_maps(samples.maps, exponents)
        maps = _in_view(maps, data, views, *every, mixtures)
        seen = overlay(seen, maps, plan.strengths[step], plan.overlay_mode)
    if plan.rand_augment > 0:
        seen = rand_augment(seen, plan.rand_augment).contiguous(memory_format=memory_format)
    if plan.holes is not None:
        seen = cut_out(seen, plan.holes[step], plan.cutout)
    return Batch(rows, numbers, data.labels[rows], pixels, maps, seen, samples, mixtures, company)
