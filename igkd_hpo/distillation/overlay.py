"""The overlay of an image's attribution map on the image."""

import torch
from torch import Tensor


def normalize_maps(maps: Tensor, exponents: Tensor) -> Tensor:
    """Return maps raised to their exponents, then stretched to [0, 1], each over its whole area; zeros if constant.

    The largest value is divided out first. That leaves the result as it is, and keeps small maps from vanishing.

    Args:
        maps: (B, H, W), 0 or above, of any float dtype; the result is float32.
        exponents: float (B,), above 0; the paper draws 2**U(0, 1).

    Source: arXiv 2503.13008.
    """
    raw = maps.float()
    peak = raw.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    powered = (raw / peak) ** exponents[:, None, None]
    low = powered.amin(dim=(1, 2), keepdim=True)
    span = 1 - low
    return (powered - low) / torch.where(span > 0, span, 1)


def overlay(pixels: Tensor, maps: Tensor, strengths: Tensor, mode: str = "blend") -> Tensor:
    """Return the pixels with their maps laid over them, in [0, 1]; strength 0 leaves an image bit for bit as it is.

    With strength s and map M: `blend` is (1 - s) x + s M, the paper's; `multiply` is x (1 - s + s M), which darkens
    where the map is low and adds nothing; `background` moves x by s (1 - M) of the way to the view's own mean colour,
    so that the parts that the map leaves out lose their contrast. Another mode raises ValueError.

    Args:
        pixels: float32 (B, 3, H, W) in [0, 1].
        maps: float32 (B, H, W) in [0, 1], already in the view of the pixels.
        strengths: float32 (B,) in [0, 1].
    """
    strength, weight = strengths[:, None, None, None], maps[:, None]
    match mode:
        case "blend":
            return torch.lerp(pixels, weight, strength)
        case "multiply":
            return pixels * (1 - strength * (1 - weight))  # so written, no rounding can leave [0, 1]
        case "background":
            return torch.lerp(pixels, pixels.mean(dim=(2, 3), keepdim=True), strength * (1 - weight))
    raise ValueError(f"overlay_mode is {mode!r}; it must be blend, multiply or background")
