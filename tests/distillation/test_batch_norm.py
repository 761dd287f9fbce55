"""Tests of folded batch normalisation: the same answers and gradients, and nothing folded that something else reads."""

import threading
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batch_norm import fold_batch_norm
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.pointwise import multiply_pointwise

PIXELS = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(module: nn.Module) -> nn.Module:
    """One in evaluation mode whose statistics and weights of normalisation are no longer those it begins with."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for numbers in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                if numbers is not None:
                    numbers.data.uniform_(0.5, 1.5, generator=generator)
    return module.eval().requires_grad_(False)


def normalisations(module: nn.Module, pixels: Tensor = PIXELS) -> int:
    """How many are computed when it is asked."""
    with torch.profiler.profile() as seen:
        module(pixels)
    return sum(event.count for event in seen.key_averages() if event.key == "aten::batch_norm")


class Branched(nn.Module):
    """Two layers whose first output is used as `use` says."""

    def __init__(self, use: Callable[["Branched", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.back = nn.Conv2d(6, 3, 1)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x).mean(dim=(2, 3))


@pytest.mark.parametrize(
    "make",
    [
        partial(mobilenet_v2, num_classes=5, width=0.25),
        partial(timm.create_model, "lcnet_050", num_classes=5),
        partial(timm.create_model, "resnet10t", num_classes=5),
    ],
    ids=["mobilenet_v2", "lcnet", "resnet"],
)
@pytest.mark.parametrize("multiplied", [False, True])
def test_a_folded_network_gives_the_same_answers_and_gradients(make: Callable[[], nn.Module], multiplied: bool) -> None:
    torch.manual_seed(0)
    # In float64, slow as it is, no ReLU's kink lies between the two.
    network = Network(trained(make()), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)).eval().double()
    pixels = PIXELS[:2, :, :16, :16].double()
    if multiplied:
        multiply_pointwise(network.to(memory_format=torch.channels_last), torch.channels_last)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    folded = fold_batch_norm(network, pixels[:1])
    assert normalisations(network, pixels) > normalisations(folded, pixels) == 0
    for one in (network, folded):
        assert not any(layer.training for layer in one.modules())
        assert not any(parameter.requires_grad for parameter in one.parameters())
    x, y = (pixels.clone().requires_grad_() for _ in range(2))
    answers, same = network(x), folded(y)
    torch.testing.assert_close(same, answers, rtol=1e-9, atol=1e-9)
    answers.square().sum().backward()
    same.square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-9, atol=1e-9 * float(x.grad.abs().max()))


@pytest.mark.parametrize(
    ("use", "left"),
    [
        (lambda net, x: net.norm(net.conv(x)), 0),
        (lambda net, x: net.other(net.norm(net.conv(x))), 1),
        (lambda net, x: net.norm(net.conv(x).relu()), 1),
        (lambda net, x: net.norm(net.conv(x).relu_()), 1),
        (lambda net, x: net.norm(made := net.conv(x)) + made, 1),
        (lambda net, x: (made := net.conv(x)).sigmoid() * net.norm(made), 1),
        (lambda net, x: net.norm(made := net.conv(x)) - net.other(made), 2),
        (lambda net, x: net.norm(net.conv(net.back(net.norm(net.conv(x))))), 2),
        (lambda net, x: net.norm(net.conv(x)) * net.conv.weight.sum(), 1),
        (lambda net, x: net.norm(net.conv(x)) * net.norm.running_mean.sum(), 0),
    ],
    ids=[
        "alone", "twice", "activated", "activated in place", "added", "gated", "two", "again", "weight", "statistics",
    ],
)  # fmt: skip
def test_what_something_else_reads_is_not_folded(use: Callable[[Branched, Tensor], Tensor], left: int) -> None:
    torch.manual_seed(0)
    network = trained(Branched(use))
    folded = fold_batch_norm(network, PIXELS[:1])
    assert normalisations(folded) == left
    torch.testing.assert_close(folded(PIXELS), network(PIXELS), rtol=1e-4, atol=1e-5)


def test_layers_that_keep_no_statistics_or_learn_otherwise_stay() -> None:
    torch.manual_seed(0)
    without = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    parametrized = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))
    for network in (without.eval(), trained(parametrized)):
        assert fold_batch_norm(network, PIXELS) is network


def test_a_script_stays_as_it_is() -> None:
    with pytest.warns(FutureWarning):
        script = torch.jit.script(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    network = Network(script, (0.5,) * 3, (0.2,) * 3).eval()
    assert fold_batch_norm(network, PIXELS) is network


class Watched(nn.Sequential):
    """A network whose code is somebody's own."""

    def __init__(self, asked: Callable[[nn.Sequential, Tensor], Tensor]) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.asked = asked

    def forward(self, x: Tensor) -> Tensor:
        return self.asked(self, x)


def test_own_code_may_ask_its_layers_as_it_likes() -> None:
    def in_inference(net: nn.Sequential, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return net[1](net[0](x))

    by_name = Watched(lambda net, x: net[1](input=net[0](x)))
    locked = Watched(lambda net, x: net[1](net[0](x)))
    locked.lock = threading.Lock()
    partly = Watched(lambda net, x: net[1](net[0](x)))
    for network in (by_name, Watched(in_inference), locked):
        assert fold_batch_norm(trained(network), PIXELS) is network
    trained(partly)[1].train()
    mean = partly[1].running_mean.clone()
    assert fold_batch_norm(partly, PIXELS) is partly
    assert torch.equal(partly[1].running_mean, mean), "nothing was asked that changes it"


def test_a_network_that_trains_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        fold_batch_norm(mobilenet_v2(num_classes=5, width=0.25), PIXELS)
