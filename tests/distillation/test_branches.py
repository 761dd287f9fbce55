"""Parallel branches are one kernel: what the branches give, added up, is what the kernel gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from igkd_hpo.distillation.branches import Branches

DOUBLE = torch.float64


def some_branches(layer: nn.Conv2d) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    parts = Branches(layer).right_inverse(layer.weight)
    return tuple(torch.randn(part.shape, generator=generator, dtype=DOUBLE) for part in parts)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_kernel_gives_what_its_three_branches_give_together(groups: int) -> None:
    layer = nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=groups, bias=False, dtype=DOUBLE)
    kernel, scale, point, point_scale, own = some_branches(layer)
    images = torch.randn(2, 6, 7, 8, dtype=DOUBLE)
    by_channel = (slice(None), None, None)
    expected = (
        scale[by_channel] * F.conv2d(images, kernel, padding=(1, 2), groups=groups)
        + point_scale[by_channel] * F.conv2d(images, point[:, :, None, None], groups=groups)
        + own[by_channel] * images
    )
    weight = Branches(layer)(kernel, scale, point, point_scale, own)
    assert torch.allclose(F.conv2d(images, weight, padding=(1, 2), groups=groups), expected)


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3, stride=2), nn.Conv2d(6, 8, 3), nn.Conv2d(6, 12, 3, groups=6)])
def test_what_changes_size_or_channels_has_no_identity(layer: nn.Conv2d) -> None:
    kernel, scale, point, point_scale = some_branches(layer)
    weight = Branches(layer)(kernel, scale, point, point_scale)
    outside = torch.ones(3, 3, dtype=torch.bool)
    outside[1, 1] = False
    assert torch.equal(weight[:, :, outside], (scale[:, None, None, None] * kernel)[:, :, outside])
    middle = scale[:, None] * kernel[:, :, 1, 1] + point_scale[:, None] * point
    assert torch.allclose(weight[:, :, 1, 1], middle)


def test_they_begin_as_the_weight_itself_and_learn_from_the_first_step() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    branches = Branches(layer)
    parts = [part.requires_grad_() for part in branches.right_inverse(layer.weight)]
    weight = branches(*parts)
    assert torch.equal(weight, layer.weight)
    (weight * torch.randn(weight.shape)).sum().backward()
    kernel, scale, point, _, own = parts  # the scale of a branch that is 0 learns from the second step on
    assert all(part.grad is not None and bool(part.grad.any()) for part in (kernel, scale, point, own))


@pytest.mark.parametrize("kernel", [1, 2, (1, 4)])
def test_a_kernel_without_a_middle_is_refused(kernel: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no middle"):
        Branches(nn.Conv2d(4, 4, kernel))
