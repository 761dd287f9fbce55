"""Attribution maps: the pixels of an image on which the teacher's answer rests."""

from collections.abc import Sequence
from functools import partial, reduce
from typing import cast

import scipy
import torch
from captum.attr import IntegratedGradients
from torch import Tensor
from torch.func import functional_call

from igkd_hpo.distillation.models import Network


def integrated_gradients(
    network: Network | Sequence[Network],
    pixels: Tensor,
    targets: Tensor,
    *,
    baseline: Tensor,
    n_steps: int,
    points: int | None = None,
    precision: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return the Integrated-Gradients maps of a batch, and how far each is from adding up as it should.

    The target's logit is integrated along the straight line from the baseline colour to the image, by Gauss-Legendre
    quadrature; the map is the sum over colours of the attributions' absolute values. Memory grows with
    `points`, time with B * n_steps.

    Args:
        network: in evaluation mode (else ValueError, since images of a batch would influence each other), on the device
            of `pixels`. Of several, the mean of their logits is explained: the attributions, with their signs, are
            linear in the logit, and are averaged one network at a time.
        pixels: float32 (B, 3, H, W) in [0, 1].
        targets: int64 (B,), the class whose logit is explained.
        baseline: (3,), a colour in [0, 1], such as the mean colour of the training images.
        n_steps: points on the line, 1 or more.
        points: how many, of all lines, go through the network at once, 1 or more; None takes all B * n_steps.
        precision: of the multiplications along the lines: float32, or bfloat16 by autocast.

    Returns:
        The maps, float32 (B, H, W), 0 or above, not normalised; and the completeness error (B,): |sum of attributions -
        (F(x) - F(x'))| / |F(x) - F(x')|, 0 where the quadrature is exact.

    Source: Sundararajan et al. 2017, arXiv 1703.01365, equation 1 and proposition 1.
    """
    networks = [network] if isinstance(network, Network) else network
    if any(one.training for one in networks):
        raise ValueError("the network is in training mode; call network.eval() before attributing")
    colour = baseline.to(pixels)[None, :, None, None].expand(1, *pixels.shape[1:])
    pixels = pixels.detach().contiguous(memory_format=networks[0].memory_format)
    half = precision == torch.bfloat16
    parts = [_attribute(one, pixels, targets, colour, n_steps, points, half) for one in networks]
    attributions, difference = (reduce(torch.add, each) / len(parts) for each in zip(*parts, strict=True))
    residual = attributions.sum(dim=(1, 2, 3)) - difference
    completeness = residual.abs() / difference.abs().clamp_min(torch.finfo(torch.float32).eps)
    return attributions.abs().sum(dim=1).float(), completeness


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Return Spearman's rank correlation of each map with its other, float64 (B,), in [-1, 1].

    The overlay stretches a map by a power that is drawn anew each time, so the order of its pixels is what matters of
    it. Where either map is constant there is no order, and the correlation is 0; 1 where both are. Maps are float
    (B, H, W), on any device.
    """
    ranks = [scipy.stats.rankdata(some.flatten(1).cpu().double().numpy(), axis=1) for some in (maps, others)]
    centred = [torch.from_numpy(some - some.mean(axis=1, keepdims=True)) for some in ranks]
    norms = [some.square().sum(dim=1).sqrt() for some in centred]
    correlation = (centred[0] * centred[1]).sum(dim=1) / (norms[0] * norms[1]).clamp_min(1e-12)
    return torch.where((norms[0] == 0) & (norms[1] == 0), 1.0, correlation)


def _attribute(
    network: Network, pixels: Tensor, targets: Tensor, colour: Tensor, n_steps: int, points: int | None, half: bool
) -> tuple[Tensor, Tensor]:
    """Return the attributions (B, 3, H, W), with their signs, and the sum that they should have (B,)."""
    frozen = {name: parameter.detach() for name, parameter in network.named_parameters()}
    forward = partial(functional_call, network, frozen)

    def along_the_line(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=half):
            return cast(Tensor, forward(x).float())

    quadrature = {"n_steps": n_steps, "method": "gausslegendre", "internal_batch_size": points}
    explain = partial(IntegratedGradients(along_the_line).attribute, baselines=colour, **quadrature)
    at_once = len(pixels) if points is None else max(1, points // n_steps)
    chunks = zip(torch.split(pixels, at_once), torch.split(targets, at_once), strict=True)
    attributions = torch.cat([explain(some, target=labels) for some, labels in chunks])
    with torch.no_grad():
        at_image = torch.cat([forward(some) for some in torch.split(pixels, points or len(pixels))])
        at_baseline = forward(colour)[0, targets]
    return attributions, at_image.gather(1, targets[:, None])[:, 0] - at_baseline
