"""The overlay: blending an image's attribution map onto the image."""

import torch
from torch import Tensor


def normalize_maps(maps: Tensor, exponents: Tensor) -> Tensor:
    """Return maps raised to their exponents, then stretched to [0, 1], each over its whole area; zeros if constant.

    The largest value is divided out first. That leaves the result as it is, and keeps small maps from vanishing.

    Args:
        maps: (B, H, W), 0 or above, of any float dtype.
        exponents: float (B,), above 0; the paper draws 2**U(0, 1).

    Returns:
        float32 (B, H, W).

    Source: arXiv 2503.13008.
    """
    raw = maps.to(torch.float32)
    peak = raw.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    powered = (raw / peak) ** exponents[:, None, None]
    low = powered.amin(dim=(1, 2), keepdim=True)
    span = 1 - low
    return (powered - low) / torch.where(span > 0, span, 1)


def overlay(pixels: Tensor, maps: Tensor, strengths: Tensor) -> Tensor:
    """Return `(1 - strength) * pixels + strength * map`, in [0, 1]; strength 0 leaves an image bit for bit as it is.

    Args:
        pixels: float32 (B, 3, H, W) in [0, 1].
        maps: float32 (B, H, W) in [0, 1], already in the view of the pixels.
        strengths: float32 (B,) in [0, 1].
    """
    return torch.lerp(pixels, maps[:, None], strengths[:, None, None, None])
