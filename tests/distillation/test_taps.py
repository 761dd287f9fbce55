"""Taps: what networks of many families give at each stride, whatever their code is like."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2, take_apart
from igkd_hpo.distillation.models import Network, Resized
from igkd_hpo.distillation.taps import ByStride, common_strides, find_taps, to_same_size
from igkd_hpo.errors import UsageError

PIXELS = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(body: nn.Module) -> Network:
    return Network(body, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]).eval()


def make(name: str, **options: Any) -> Network:
    library, _, rest = name.partition("/")
    if library == "timm":
        return network(timm.create_model(rest, num_classes=3, **options))
    return network(torchvision.models.get_model(rest, weights=None, num_classes=3, **options))


def told(some: Network, size: int = 64) -> dict[int, tuple[str, int]]:
    return {stride: (tap.module, tap.channels) for stride, tap in find_taps(some, (size, size)).items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/lcnet_050",
         {2: ("blocks.0", 16), 4: ("blocks.1", 32), 8: ("blocks.2", 64), 16: ("blocks.4", 128), 32: ("blocks", 256)}),
        ("timm/mobilenetv3_small_100",
         {2: ("bn1", 16), 4: ("blocks.0", 16), 8: ("blocks.1", 24), 16: ("blocks.3", 48), 32: ("blocks", 576)}),
        ("torchvision/shufflenet_v2_x0_5",
         {2: ("conv1", 24), 4: ("maxpool", 24), 8: ("stage2", 48), 16: ("stage3", 96), 32: ("conv5", 1024)}),
        ("torchvision/resnet18",
         {2: ("relu", 64), 4: ("layer1", 64), 8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)}),
        ("timm/repvgg_a0",
         {2: ("stem", 48), 4: ("stages.0", 48), 8: ("stages.1", 96), 16: ("stages.2", 192), 32: ("final_conv", 1280)}),
    ],
)  # fmt: skip
def test_the_last_module_of_each_stride(name: str, expected: dict[int, tuple[str, int]]) -> None:
    some = make(name)
    assert told(some) == expected
    features, logits = ByStride(some, (64, 64)).run(PIXELS, tuple(expected))
    shapes = {stride: (len(PIXELS), channels, 64 // stride, 64 // stride) for stride, (_, channels) in expected.items()}
    assert {stride: tuple(feature.shape) for stride, feature in features.items()} == shapes
    assert logits is not None
    assert torch.equal(logits, some(PIXELS))


def vit() -> Network:
    return make("timm/vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=1)


def swin() -> Network:
    depths: Any = (1, 1, 1, 1)
    sizes = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": depths, "num_heads": depths}
    return make("timm/swin_tiny_patch4_window7_224", **sizes)


@pytest.mark.parametrize(
    ("make_one", "expected"),
    [
        (vit, {16: ("blocks.1", 24)}),
        (swin, {4: ("layers.0", 8), 8: ("layers.1", 16), 16: ("layers.2", 32), 32: ("layers.3", 64)}),
    ],
)
def test_of_a_transformer_its_tokens_count_and_not_the_convolution_that_makes_them(
    make_one: Callable[[], Network], expected: dict[int, tuple[str, int]]
) -> None:
    some = make_one()
    assert told(some) == expected
    features, logits = ByStride(some, (64, 64)).run(PIXELS, tuple(expected))
    shapes = {stride: (len(PIXELS), channels, 64 // stride, 64 // stride) for stride, (_, channels) in expected.items()}
    assert {stride: tuple(feature.shape) for stride, feature in features.items()} == shapes
    assert logits is not None
    assert torch.equal(logits, some(PIXELS))
    last = max(expected)
    wanted = some.body.forward_intermediates((PIXELS - some.mean) / some.std, indices=[-1], output_fmt="NCHW")[1]
    assert torch.equal(features[last], wanted[0])


def test_a_transformer_that_does_not_name_its_stages_has_no_taps() -> None:
    sizes = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 1, "hidden_dim": 24, "mlp_dim": 24}
    assert told(network(torchvision.models.VisionTransformer(**sizes, num_classes=3))) == {}


def test_maps_of_one_position_are_none() -> None:
    assert set(told(make("timm/lcnet_050"), 32)) == {2, 4, 8, 16}
    assert set(told(make("timm/lcnet_050"), 8)) == {2, 4}


def test_a_resized_network_is_probed_behind_its_resizing() -> None:
    resized = network(Resized(make("torchvision/resnet18").body, 96))
    taps = ByStride(resized, (32, 32))
    assert {stride: tap.size for stride, tap in taps.taps.items()} == {
        2: (48, 48), 4: (24, 24), 8: (12, 12), 16: (6, 6), 32: (3, 3)
    }  # fmt: skip
    features, _ = taps.run(torch.rand(2, 3, 32, 32), (8,))
    assert features[8].shape == (2, 128, 12, 12)


def test_the_imagenet_form_of_the_built_in_network_has_no_blocks_of_the_same_number() -> None:
    assert take_apart(torchvision.models.mobilenet_v2(weights=None)) is None
    for layers_removed in (0, 5, 17):
        assert take_apart(mobilenet_v2(num_classes=3, width=0.25, layers_removed=layers_removed)) is not None
    built_in = network(mobilenet_v2(num_classes=3, layers_removed=0))
    assert told(built_in, 32) == {2: ("features.6", 32), 4: ("features.13", 96), 8: ("features", 1280)}


class Own(nn.Module):
    """Somebody's code: its layers change what came before them in place, one runs at every depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        logits: Tensor = self.last(self.pool(x * self.gate(x)).flatten(1))
        return logits


class WithoutPadding(nn.Sequential):
    """Convolutions that take off a rim each, and a pooling to one size, whatever comes in."""

    def __init__(self) -> None:
        convolutions = [nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.Conv2d(8, 8, 3)]
        super().__init__(*convolutions, nn.AdaptiveAvgPool2d(16), nn.Flatten(), nn.Linear(8 * 256, 3))


@pytest.mark.parametrize(("size", "sides"), [(64, {2: 30, 4: 12}), (20, {2: 8})])
def test_maps_without_padding_are_of_the_stride_that_they_would_have_with_it(size: int, sides: dict[int, int]) -> None:
    taps = find_taps(network(WithoutPadding()), (size, size))
    assert {stride: tap.size[0] for stride, tap in taps.items()} == sides
    assert told(make("torchvision/inception_v3", aux_logits=False, init_weights=False), 96) == {
        2: ("Conv2d_2b_3x3", 64), 4: ("Conv2d_4a_3x3", 192), 8: ("Mixed_5d", 288), 16: ("Mixed_6e", 768)
    }  # fmt: skip


def test_what_follows_a_tap_in_place_does_not_change_it() -> None:
    own = network(Own())
    assert told(own) == {2: ("first", 6), 4: ("second", 8)}, "neither a gate, nor a layer that runs twice, nor a pool"
    features, _ = ByStride(own, (64, 64)).run(PIXELS, (2, 4))
    assert torch.equal(features[2], own.body.first((PIXELS - own.mean) / own.std))
    assert bool((features[2] < 0).any())


class NeedsNumbers(Own):
    def forward(self, x: Tensor) -> Tensor:
        if float(x.mean()) > 1e9:
            raise ValueError("too bright")
        return super().forward(x)


class OneSize(Own):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8 * 16 * 16, 3)
        self.pool = nn.Identity()


@pytest.mark.parametrize("kind", [NeedsNumbers, OneSize])
def test_code_that_cannot_run_without_numbers_or_at_another_size_is_run_as_it_is(kind: Callable[[], nn.Module]) -> None:
    assert told(network(kind()))[2] == ("first", 6)
    assert set(told(network(kind()))) == {2, 4}


def test_code_that_fails_is_told_so() -> None:
    with pytest.raises(UsageError, match=r"OneSize fails on an image of 60x60 .*shapes"):
        find_taps(network(OneSize()), (60, 60))


def test_a_networks_own_word_on_its_taps_wins() -> None:
    own = network(Own())
    own.body.taps = {"first": 2, "gate.1": 8, "pool": 16}
    assert told(own) == {2: ("first", 6), 16: ("pool", 8)}, "of one position is none"
    for taps, message in (
        ({"third": 2}, "taps of Own names 'third'"),
        ({"relu": 2}, "taps of Own names 'relu'"),
        ({"last": 2}, "taps of Own names 'last'"),
        ({"first": 2, "second": 2}, "taps of Own names two modules of stride 2"),
    ):
        own.body.taps = taps
        with pytest.raises(UsageError, match=message):
            find_taps(own, (64, 64))


def test_nothing_in_common_is_told_with_a_remedy() -> None:
    own, tokens = ByStride(network(Own()), (64, 64)), ByStride(vit(), (64, 64))
    flat = ByStride(network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))), (64, 64))
    with pytest.warns(FutureWarning, match="deprecated"):
        script = torch.jit.script(Own())
    scripted = ByStride(network(script), (64, 64))
    assert common_strides(own, own) == (2, 4)
    with pytest.raises(UsageError, match=r"student .*2, 4.* teacher .*16: none .*attention_weight"):
        common_strides(own, tokens)
    for without in (flat, scripted):
        with pytest.raises(UsageError, match=r"teacher's .* gives no maps .*attention_weight.* attribute taps"):
            common_strides(own, without)


def test_looking_for_taps_leaves_the_network_and_the_generator_alone() -> None:
    class Draws(Own):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x + torch.rand(()))

    some = network(Draws()).train()
    before = torch.get_rng_state()
    assert set(find_taps(some, (64, 64))) == {2, 4}
    assert torch.equal(torch.get_rng_state(), before)
    assert some.body.training
    assert not hasattr(some.body, "calls")


def test_maps_of_two_sizes_meet_at_the_smaller() -> None:
    large = torch.arange(16.0).reshape(1, 1, 4, 4)
    small = torch.ones(1, 2, 2, 2)
    first, second = to_same_size(large, small)
    assert first.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert second is small
    assert to_same_size(large, large)[0] is large
