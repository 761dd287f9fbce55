"""Alignment of the teacher's knowledge with the images: its own, or, as a control, another image's, noise, or a mean.

If a study is as good with a control as with `aligned`, what helped was not the teacher's word on that image.

`aligned`: everything belongs to the image and follows its view.
`reference_shuffled`: what the published code does. It stores what the teacher knows in the order of a shuffled loader,
    each made from one random view, and reads it by the image's number. So an image gets the logits and features of
    another image in one view, whatever its own view is, and the map of a third one, in a crop and flip of that map's
    own, which never moves.
`permuted_maps`: logits are aligned; the map is another image's and follows the view.
`smooth_noise`: logits are aligned; the map holds the values of the image's own map at random, smoothly varying places.
`mean_map`: logits are aligned; every map is the mean over all images.

Everything is drawn once for a training, from its seed, on the CPU.
Source of `reference_shuffled`: github.com/nordlinglab/ModelCompression-IntegratedGradients at c534787.
"""

import torch
from torch import Tensor

from igkd_hpo.distillation.batches import TrainingData, shown_view
from igkd_hpo.distillation.teaching import Teaching
from igkd_hpo.distillation.views import Views

_CHUNK = 1024  # maps whose noise is made at once: 200 MB on the way for 224x224, 10 MB for 32x32


def align_maps(maps: Tensor, mode: str, *, generator: torch.Generator, views: Views) -> tuple[Tensor, bool]:
    """Return the map that each image gets in this mode, and whether it follows the image's view.

    Args:
        maps: (N, H, W), 0 or above, of any float dtype; row i is the map of image i.
        mode: one of this module's, else a ValueError is raised; `aligned` returns `maps` itself.
        generator: on the CPU.
        views: of the training images, on the maps' device.
    """
    match mode:
        case "aligned":
            return maps, True
        case "permuted_maps":
            return maps[_permutation(maps, generator)], True
        case "smooth_noise":
            return _smooth_noise(maps, generator), True
        case "mean_map":
            return maps.float().mean(dim=0).to(maps.dtype).expand_as(maps), True
        case "reference_shuffled":
            stored = views.cut(maps[:, None], _every(maps), _random_numbers(maps, generator, views))[:, 0]
            return stored.to(maps.dtype)[_permutation(maps, generator)], False
    modes = "aligned, reference_shuffled, permuted_maps, smooth_noise or mean_map"
    raise ValueError(f"alignment is {mode!r}; it must be {modes}")


class StandIns:
    """The images that the teacher answers to instead: for each another one, in one view that never changes."""

    def __init__(self, data: TrainingData, *, generator: torch.Generator, views: Views) -> None:
        """Take the images, on their device; the generator is on the CPU."""
        self.data = data
        self.views = views
        self.numbers = _random_numbers(data.labels, generator, views)
        self.others = _permutation(data.labels, generator)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images that stand in for `rows`, the numbers of their views, and the pixels (B, 3, H, W) there."""
        others = self.others[rows]
        numbers = self.numbers[others]
        return others, numbers, shown_view(self.data, self.views, others, numbers)


class ShuffledLogits:
    """The logits of the images that stand in, whatever the student's views are."""

    def __init__(self, teaching: Teaching, stand_ins: StandIns) -> None:
        self.teaching = teaching
        self.stand_ins = stand_ins

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Return the true teaching's logits of the images that stand in for `rows`."""
        return self.teaching.logits(*self.stand_ins.of(rows))


def _permutation(rows: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(rows), generator=generator).to(rows.device)


def _every(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _random_numbers(rows: Tensor, generator: torch.Generator, views: Views) -> Tensor:
    return torch.randint(views.count, (len(rows),), generator=generator).to(rows.device)


def _smooth_noise(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return each map's own values, laid out in the order of a Gaussian field with the maps' mean power spectrum.

    So a noise map is as bright, as sparse and nearly as smooth as the image's own map, and knows nothing of the image.
    """
    height, width = maps.shape[1:]
    power = torch.zeros(height, width // 2 + 1, device=maps.device)
    for chunk in torch.split(maps, _CHUNK):
        centred = chunk.float() - chunk.float().mean(dim=(1, 2), keepdim=True)
        power += torch.fft.rfft2(centred).abs().square().sum(dim=0)
    amplitude = (power / len(maps)).sqrt()
    fields = []
    for chunk in torch.split(maps, _CHUNK):
        white = torch.randn(chunk.shape, generator=generator).to(maps.device)
        field = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
        order = field.flatten(1).argsort(dim=1)
        values = chunk.flatten(1).sort(dim=1).values
        fields.append(torch.empty_like(values).scatter_(1, order, values).reshape(chunk.shape))
    return torch.cat(fields)
