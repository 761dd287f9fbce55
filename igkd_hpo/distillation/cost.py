"""Costs of running a network, measured before anybody has trained it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from igkd_hpo.distillation.evaluation import evaluating
from igkd_hpo.distillation.latency import Latency, measure_latency
from igkd_hpo.distillation.threads import torch_threads


def count_macs(module: nn.Module, image_size: tuple[int, int]) -> int:
    """Return the multiply-adds of one image (3, H, W) in convolutions and linear layers, on the module's device.

    Normalisation, activations and pooling are left out, as is usual; torch counts a multiply-add as two operations,
    hence the half. The meta device would compute nothing, and takes three times as long for a small student: what it
    does without numbers, torch does in Python.
    """
    device = next(module.parameters()).device
    with evaluating(module), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, 3, *image_size, device=device))
    return int(counter.get_total_flops()) // 2


def time_forward(
    module: nn.Module, image_size: tuple[int, int], memory_format: torch.memory_format = torch.channels_last
) -> Latency:
    """Return the latency of one image (1, 3, H, W) in float32, laid out as asked, on one thread of the CPU."""
    pixels = torch.rand(1, 3, *image_size).to(memory_format=memory_format)
    module.to(memory_format=memory_format)
    with torch_threads(1), evaluating(module):
        return measure_latency(lambda: module(pixels))
