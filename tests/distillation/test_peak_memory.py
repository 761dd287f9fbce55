"""The largest sum of live activations, against sums made by hand."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.peak_memory import count_peak_activations

IMAGE = 3 * 8 * 8


class Residual(nn.Module):
    """A 1x1 convolution to `channels`, which is added to what two more make of it."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 1)
        self.up, self.down = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.normed = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        return x + self.normed(self.down(self.up(x).relu()))


def test_a_chain_holds_the_input_and_the_output_of_its_widest_operation() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2))
    # 192 and 256 numbers at the first convolution, 256 and 6 * 3 * 3 at the second; what is between works in place.
    assert count_peak_activations(chain, (8, 8)) == IMAGE + 256


def test_a_chain_that_keeps_nothing_is_as_large_as_its_image() -> None:
    assert count_peak_activations(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), (8, 8)) == 195


def test_what_a_network_gives_is_held_too() -> None:
    assert count_peak_activations(nn.Conv2d(3, 10, 1), (8, 8)) == IMAGE + 640


def test_a_residual_is_held_over_the_branch_beside_it() -> None:
    # 4 channels that wait for the addition, 10 that are read, 4 that are made of them.
    assert count_peak_activations(Residual(4, 10), (8, 8)) == 64 * (4 + 10 + 4)
    # A narrow branch: image and first convolution, 3 + 20, or 20 that wait, 1 and 20.
    assert count_peak_activations(Residual(20, 1), (8, 8)) == 64 * (20 + 1 + 20)


def test_a_depthwise_block_holds_its_expansion_twice() -> None:
    block = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU6(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.Hardswish(),
        nn.Conv2d(12, 2, 1),
    )  # fmt: skip
    assert count_peak_activations(block, (8, 8)) == 64 * (12 + 12)
    block[2].stride = (2, 2)
    assert count_peak_activations(block, (8, 8)) == 64 * 12 + 16 * 12


class Shuffle(nn.Module):
    """Halves of which one goes through a convolution, joined, and put into another order."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = nn.Conv2d(2, 2, 1)
        self.first = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.first(images).chunk(2, dim=1)
        joined = torch.cat([left, self.beside(right)], dim=1)
        return joined.view(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8)


def test_views_take_nothing_and_hold_what_they_look_at() -> None:
    # At the join: both halves in one buffer of 4 channels, the convolution's 2, the result's 4. The copy holds 4 and 4.
    assert count_peak_activations(Shuffle(), (8, 8)) == 64 * (4 + 2 + 4)


class Turned(nn.Conv2d):
    """A network that turns its images before it does anything else."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.transpose(2, 3).contiguous())


def test_a_copy_into_another_layout_cannot_take_the_place_of_what_it_copies() -> None:
    assert count_peak_activations(Turned(3, 1, 8), (8, 8)) == 2 * IMAGE


class Constants(nn.Module):
    """A scale that follows from weights alone, large on the way, and a second result that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scale = (self.scale * torch.ones(3, 50, 50)).mean(dim=(1, 2), keepdim=True)
        unread = images.repeat(1, 9, 1, 1)
        del unread
        return images * scale


def test_what_follows_from_weights_or_is_never_read_takes_nothing() -> None:
    assert count_peak_activations(Constants(), (8, 8)) == IMAGE


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_mobilenet_v2_is_as_counted_by_hand(device: str) -> None:
    with torch.device(device):
        published, small = MobileNetV2(num_classes=10), mobilenet_v2(num_classes=10, layers_removed=5)
    # Its third block, 16 channels expanded to 96 of 48x48, and their depthwise convolution with a stride of 2.
    assert count_peak_activations(published, (96, 96)) == 96 * 48 * 48 + 96 * 24 * 24
    # The form for small images: 24 channels wait for the addition, their 144 are convolved at full resolution.
    assert count_peak_activations(small, (32, 32)) == (24 + 144 + 144) * 32 * 32


def test_the_module_comes_back_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    count_peak_activations(module, (8, 8))
    assert module.training
    assert module[1].running_mean.abs().sum() == 0
