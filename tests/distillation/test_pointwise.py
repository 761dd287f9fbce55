"""Tests of 1x1 convolutions as products of matrices: the same numbers, whatever the layers are."""

import copy

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.pointwise import multiply_pointwise


def double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(torch.float64).to(memory_format=torch.channels_last)


def multiplied(module: nn.Module, memory_format: torch.memory_format = torch.channels_last) -> nn.Module:
    made = copy.deepcopy(module)
    multiply_pointwise(made, memory_format)
    return copy.deepcopy(made)  # as a running average of the weights is made


def pixels(memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    drawn = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn.contiguous(memory_format=memory_format)


def learned(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output, the gradients of the input and of all weights, and a second derivative by the input."""
    x = x.clone().requires_grad_()
    output = module(x)
    first = torch.autograd.grad(output.square().sum(), [x, *module.parameters()], create_graph=True)
    (second,) = torch.autograd.grad(first[0].square().sum(), x)
    return [output, *first, second]


def operators(module: nn.Module, x: Tensor) -> set[str]:
    with torch.profiler.profile() as seen:
        module(x)
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("training", [True, False])
def test_a_network_computes_what_it_did_before(training: bool) -> None:
    torch.manual_seed(0)
    before = double(mobilenet_v2(num_classes=5, width=0.25, layers_removed=9)).train(training)
    after = multiplied(before)
    for one, other in zip(learned(before, pixels()), learned(after, pixels()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert after.state_dict().keys() == before.state_dict().keys()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=str)
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
def test_every_convolution_is_what_it_was(layer: nn.Conv2d, memory_format: torch.memory_format) -> None:
    before = double(layer)
    after = multiplied(before)
    x = pixels(memory_format)
    for one, other in zip(learned(before, x), learned(after, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_1x1_convolution_is_a_product_where_it_learns() -> None:
    assert "aten::conv2d" not in operators(multiplied(double(nn.Conv2d(3, 5, 1))), pixels())


@torch.no_grad()
def test_without_gradients_it_stays_a_convolution() -> None:
    """So that an answer does not depend on the row that an image has in its batch, on any processor."""
    assert "aten::conv2d" in operators(multiplied(double(nn.Conv2d(3, 5, 1))), pixels())


def test_a_network_in_contiguous_memory_is_left_alone() -> None:
    assert type(multiplied(nn.Conv2d(3, 5, 1), torch.contiguous_format)) is nn.Conv2d


def test_layers_of_others_are_left_alone() -> None:
    class Own(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    assert type(multiplied(Own(3, 5, 1))) is Own
