"""Tests of the kernels of a network on a CPU: the same numbers, whatever the layers are."""

import copy

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.kernels import choose_kernels
from igkd_hpo.distillation.models import Network

ACTIVATIONS = [nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish, nn.ReLU]


def network(body: nn.Module) -> Network:
    made = Network(body, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    return made.to(torch.float64).to(memory_format=torch.channels_last)


def pixels(memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    drawn = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn.contiguous(memory_format=memory_format)


def learned(some: Network, x: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of the input and of all weights."""
    x = x.clone().requires_grad_()
    output = some(x)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), [x, *some.parameters()])]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_computes_what_it_did_before(memory_format: torch.memory_format, training: bool) -> None:
    torch.manual_seed(0)
    before = network(mobilenet_v2(num_classes=5, width=0.25, layers_removed=9)).train(training)
    after = choose_kernels(copy.deepcopy(before))
    x = pixels(memory_format)
    for one, other in zip(learned(before, x), learned(after, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert after.state_dict().keys() == before.state_dict().keys()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 1),
        nn.Conv2d(3, 5, 1, bias=False),
        nn.Conv2d(3, 5, 1, padding="same"),
        nn.Conv2d(3, 5, 1, stride=2),
        nn.Conv2d(3, 5, 1, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 6, 1, groups=3),
        nn.Conv2d(3, 5, (1, 3)),
    ],
    ids=str,
)
def test_every_convolution_is_what_it_was(layer: nn.Conv2d) -> None:
    before = network(copy.deepcopy(layer))
    after = choose_kernels(copy.deepcopy(before))
    for one, other in zip(learned(before, pixels()), learned(after, pixels()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_1x1_convolution_is_a_product_of_matrices_where_its_input_lies_as_one() -> None:
    with torch.profiler.profile() as seen:
        choose_kernels(network(nn.Conv2d(3, 5, 1)))(pixels())
    assert "aten::conv2d" not in {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_an_activation_copies_nothing_and_computes_the_same_bits(kind: type[nn.Module]) -> None:
    before = network(kind(inplace=True))
    after = choose_kernels(copy.deepcopy(before))
    x = pixels().requires_grad_()
    with torch.profiler.profile() as seen:
        after(x)
    assert "aten::clone" not in {event.key for event in seen.key_averages()}
    both = zip(learned(before, pixels()), learned(after, pixels()), strict=True)
    assert all(torch.equal(one, other) for one, other in both)


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_an_activation_works_in_place_where_no_gradient_is_recorded(kind: type[nn.Module]) -> None:
    body = nn.Sequential(nn.Identity(), kind(inplace=True))
    seen: list[Tensor] = []
    body[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    some = copy.deepcopy(choose_kernels(network(body)))
    with torch.no_grad():
        output = some(pixels())
    assert output.data_ptr() == seen[0].data_ptr()


def test_an_activation_that_is_not_in_place_stays_so() -> None:
    x = pixels()
    some = choose_kernels(network(nn.Hardswish()))
    with torch.no_grad():
        some.body(x)
    assert torch.equal(x, pixels())
    assert type(some.body) is nn.Hardswish


def test_layers_of_others_are_left_alone() -> None:
    class Own(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    some = choose_kernels(network(Own(3, 5, 1)))
    assert type(some.body) is Own
