"""Faithfulness of a network's attribution maps: whether its answer hangs on the pixels that they show."""

import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from igkd_hpo.distillation.attribution import integrated_gradients
from igkd_hpo.distillation.evaluation import evaluating
from igkd_hpo.distillation.models import Network

_STEPS = 16  # between the whole image and none of it
_RADIUS = 0.02  # captum's own, in pixels of [0, 1]: five levels of 256
_DRAWS = 4


def removal_areas(
    network: Network, pixels: Tensor, targets: Tensor, maps: Tensor, *, baseline: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the deletion and the insertion area of each map, float64 (B,), in [0, 1].

    Pixels are replaced by the baseline colour, the brightest of the map first, in 16 steps from none to all (in as many
    as there are pixels where these are fewer). The area under the target's probability over the share that is replaced
    is the deletion area: small where the answer hangs on the bright pixels. Insertion begins with the baseline colour
    and puts the brightest pixels back first: large where they are enough. Pixels that are equally bright follow each
    other in one order that was drawn by lot, the same for all images. Two passes of the batch for each step.

    Args:
        pixels: float32 (B, 3, H, W) in [0, 1], on the network's device.
        targets: int64 (B,), the class whose probability is followed.
        maps: float (B, H, W).
        baseline: (3,), a colour in [0, 1].

    Source: Petsiuk et al. 2018, arXiv 1806.07421, section 3.2.
    """
    size = maps[0].numel()
    steps = min(_STEPS, size)
    lot = torch.randperm(size, generator=torch.Generator().manual_seed(0)).to(maps.device)
    brightest_first = lot[maps.flatten(1)[:, lot].argsort(dim=1, descending=True, stable=True)]
    rank = brightest_first.argsort(dim=1).reshape(maps.shape)[:, None]
    colour = baseline.to(pixels)[None, :, None, None]
    counts = [round(step * size / steps) for step in range(steps + 1)]
    answers: tuple[list[Tensor], list[Tensor]] = [], []
    with evaluating(network):
        for count in counts:
            replaced = rank < count
            for curve, some in zip(answers, (replaced, ~replaced), strict=True):
                view = torch.where(some, colour, pixels).contiguous(memory_format=network.memory_format)
                curve.append(network(view).double().softmax(dim=1).gather(1, targets[:, None])[:, 0])
    shares = torch.tensor(counts, dtype=torch.float64, device=pixels.device) / size
    deletion, insertion = (torch.trapezoid(torch.stack(curve, dim=1), shares, dim=1) for curve in answers)
    return deletion, insertion


def map_sensitivity(
    network: Network,
    pixels: Tensor,
    targets: Tensor,
    *,
    baseline: Tensor,
    n_steps: int,
    points: int | None,
    generator: torch.Generator,
) -> Tensor:
    """Return how far small noise moves each image's map, relative to the map's length, float32 (B,), 0 or above.

    The most of 4 draws of noise up to 0.02 in each pixel, by captum's `sensitivity_max`: 5 maps for each image.

    Args:
        network, pixels, targets, baseline, n_steps, points: see `integrated_gradients`.
        generator: of the noise, on the CPU.

    Source: Yeh et al. 2019, arXiv 1901.09392, definition 2.1.
    """

    def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
        some = inputs if isinstance(inputs, Tensor) else inputs[0]
        return (integrated_gradients(network, some, target, baseline=baseline, n_steps=n_steps, points=points)[0],)

    def add_noise(inputs: Tensor) -> Tensor:
        noise = torch.rand(inputs.shape, generator=generator).to(inputs)
        return (inputs + _RADIUS * (2 * noise - 1)).clamp(0, 1)

    moved: Tensor = sensitivity_max(explain, pixels, add_noise, n_perturb_samples=_DRAWS, target=targets)
    return moved
