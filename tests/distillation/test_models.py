from typing import Any

import pytest
import torch
from torch import nn

from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2, plain_code
from igkd_hpo.distillation.models import Network, count_parameters, to_pixels

# Full width, 10 classes: parameters left when so many blocks are cut from the end (index = blocks cut).
PARAMETERS = [
    2_236_682, 1_814_922, 1_339_402, 1_019_402, 699_402, 543_498, 425_226, 306_954, 240_010,
    185_738, 131_466, 77_194, 55_818, 40_970, 26_122, 16_042, 7_210, 1_994,
]  # fmt: skip


@pytest.mark.parametrize("layers_removed", range(18))
def test_cut_networks_have_the_published_sizes_and_take_8x8_and_32x32(layers_removed: int) -> None:
    body = mobilenet_v2(num_classes=10, layers_removed=layers_removed).eval()
    assert count_parameters(body) == PARAMETERS[layers_removed]
    with torch.no_grad():
        for size in (8, 32):
            assert body(torch.rand(2, 3, size, size)).shape == (2, 10)


def test_small_images_end_in_1x1_maps_and_still_train() -> None:
    body = mobilenet_v2(num_classes=3, width=0.25).train()
    maps = body.features(torch.rand(2, 3, 8, 8))
    assert maps.shape[2:] == (1, 1)
    body(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in body.parameters())


def test_state_dict_keys_and_resolution() -> None:
    body = mobilenet_v2(num_classes=10, layers_removed=5)
    heads = {key.split(".")[0] + "." + key.split(".")[1] for key in body.state_dict()}
    assert heads == {f"features.{i}" for i in range(14)} | {"classifier.1"}
    assert body.features(torch.rand(1, 3, 32, 32)).shape == (1, 96, 8, 8)


def test_width_is_rounded_to_multiples_of_8() -> None:
    body = mobilenet_v2(num_classes=10, width=0.4, layers_removed=5)
    assert body.features[0][0].out_channels == 16  # 12.8, and 8 would be more than 10 % below
    assert all(m.out_channels % 8 == 0 for m in body.modules() if isinstance(m, nn.Conv2d))


def test_dropout_comes_before_the_last_layer() -> None:
    body = mobilenet_v2(num_classes=3, width=0.25, layers_removed=9, dropout=0.3)
    dropout, head = body.classifier
    assert dropout.p == 0.3
    assert isinstance(head, nn.Linear)


def test_same_seed_same_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(mobilenet_v2(num_classes=4, width=0.25, layers_removed=9).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 10, "width": 0.0}, r"width is 0\.0"),
        ({"num_classes": 10, "layers_removed": 18}, "layers_removed is 18; .* 0 to 17"),
        ({"num_classes": 10, "layers_removed": -1}, "layers_removed is -1"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mobilenet_v2(**arguments)


def test_network_normalises_and_keeps_its_buffers_out_of_the_state_dict() -> None:
    network = Network(nn.Identity(), [0.1, 0.2, 0.3], torch.tensor([0.5, 0.25, 0.125]))
    pixels = torch.tensor([0.6, 0.7, 0.8])[None, :, None, None].expand(2, 3, 4, 4)
    expected = torch.tensor([1.0, 2.0, 4.0])[None, :, None, None].expand(2, 3, 4, 4)
    torch.testing.assert_close(network(pixels), expected)
    assert network.state_dict() == {}


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [([0.5], [0.5] * 3, "mean has 1 numbers"), ([0.5] * 3, [0.5, 0.0, 0.5], r"std is \[0\.5, 0\.0, 0\.5\]")],
)
def test_impossible_normalisation_is_refused(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(nn.Identity(), mean, std)


def test_bytes_become_pixels_in_0_to_1() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert to_pixels(images).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert to_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.channels_last).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize(("width", "layers_removed"), [(1.0, 0), (0.25, 17), (1.4, 5)])
def test_the_plain_code_of_a_card_builds_the_same_network(width: float, layers_removed: int) -> None:
    names: dict[str, Any] = {}
    request = Request(name="mobilenet_v2", num_classes=7, image_size=(32, 32))
    with torch.device("meta"):
        exec(plain_code(request, width=width, layers_removed=layers_removed), names)
        wanted = mobilenet_v2(num_classes=7, width=width, layers_removed=layers_removed)
        assert str(names["body"]) == str(wanted)
        shapes = [{key: value.shape for key, value in body.state_dict().items()} for body in (names["body"], wanted)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("torchvision/resnet18", {"stages_removed": 2, "width": 1.0}),
        ("torchvision/shufflenet_v2_x0_5", {"stages_removed": 1, "width": 1.0}),
        ("torchvision/mobilenet_v2", {"stages_removed": 1, "width": 0.5}),
        ("torchvision/mobilenet_v3_small", {"stages_removed": 0, "width": 1.0}),
        ("timm/lcnet_050", {"stages_removed": 1}),
        ("timm/vit_tiny_patch16_224", {"stages_removed": 3}),
    ],
)
def test_the_plain_code_of_a_library_s_network_builds_the_same(name: str, knobs: dict[str, Any]) -> None:
    kind, request = find_architecture(name), Request(name=name, num_classes=7, image_size=(64, 64))
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        wanted = kind.build(request, **knobs).eval()
        assert kind.code is not None
        exec(str(kind.code(request, **knobs)), names)
        body = names["body"].eval()
        body.load_state_dict(wanted.state_dict(), strict=True)
        images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(body(images), wanted(images))
