"""Optimizers, learning-rate schedules and momenta, torch's own, by the names the study file uses."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from igkd_hpo.distillation.sparsity import undecayed

Parameters = Iterable[nn.Parameter] | list[dict[str, Any]]


def decay_groups(network: nn.Module, decay: str) -> Parameters:
    """Return the parameters for `make_optimizer`: "all" decays every one, "weights" none of one dimension or less.

    Those are the scales and shifts of batch normalisation, and the biases. What `undecayed` names is never decayed.
    Another word raises ValueError.
    """
    if decay not in ("all", "weights"):
        raise ValueError(f"decay is {decay!r}; it must be all or weights")
    spared = {id(part) for part in undecayed(network)}
    if decay == "all" and not spared:
        return network.parameters()
    decayed: dict[str, Any] = {"params": []}
    others: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    for part in network.parameters():
        group = decayed if id(part) not in spared and (decay == "all" or part.ndim > 1) else others
        group["params"].append(part)
    return [decayed, others]


def slow_down(groups: Parameters, parts: Iterable[nn.Parameter], *, rate: float) -> Parameters:
    """Return groups of the same parameters in which these ones have a peak learning rate of their own."""
    slow = {id(part) for part in parts}
    whole = groups if isinstance(groups, list) else [{"params": list(groups)}]
    divided = []
    for group in whole:
        fast = [part for part in group["params"] if id(part) not in slow]
        held = [part for part in group["params"] if id(part) in slow]
        divided += [{**group, "params": fast}] if fast else []
        divided += [{**group, "params": held, "lr": rate}] if held else []
    return divided


def make_optimizer(
    parameters: Parameters, name: str, learning_rate: float, weight_decay: float, device: torch.device
) -> Optimizer:
    """Return the optimizer `name`: "sgd" (Nesterov momentum 0.9), "adam" or "adamw"; ValueError for another."""
    fused = device.type in ("cpu", "cuda")  # where torch has one kernel for a whole optimizer step
    capturable = device.type == "cuda"  # Adam's count of steps lives on the device, where a CUDA graph can raise it
    match name:
        case "sgd":
            return SGD(parameters, learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay, fused=fused)
        case "adam" | "adamw":
            kind = Adam if name == "adam" else AdamW
            return kind(parameters, learning_rate, weight_decay=weight_decay, fused=fused, capturable=capturable)
    raise ValueError(f"optimizer is {name!r}; it must be sgd, adam or adamw")


def begin_momenta(optimizer: Optimizer) -> None:
    """Give parameters that did not learn so far the momentum that others began with, 0, where the optimizer is SGD.

    Its fused kernel takes either momenta for all parameters or for none. Adam begins for each by itself.
    """
    if isinstance(optimizer, SGD):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def make_schedule(optimizer: Optimizer, name: str, total_steps: int) -> LRScheduler:
    """Return the schedule `name`, to be stepped after every batch, for `total_steps` batches.

    Each group's rate at the start is its peak: "constant"; "cosine" from there to 0; "one_cycle" up to it over the
    first 30 %, then down to nearly 0, leaving the momentum as it is. Another name raises ValueError.
    """
    match name:
        case "constant":
            return ConstantLR(optimizer, factor=1.0, total_iters=0)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=total_steps)
        case "one_cycle":
            peaks = [float(group["lr"]) for group in optimizer.param_groups]
            return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, cycle_momentum=False)
    raise ValueError(f"schedule is {name!r}; it must be constant, cosine or one_cycle")


def forget_within(steps: int, network: nn.Module, *, left: float) -> None:
    """Raise batch normalisation's momentum until an epoch of few steps leaves this share of its first statistics.

    Else validation lags behind training by epochs, and a pruner judges noise: on 1,150 digits, 9 steps an epoch, a
    student whose training loss had come down to 1.05 still validated at 0.13 with torch's 0.1, at 0.4 or more with 0.5.
    From 44 steps on, 0.1 is enough already to leave 1 %.

    What pretrained weights bring is worth more: with 13 steps an epoch EfficientNet-Lite0 came to 0.49 on photographs
    with 0.1, to 0.53 where 10 % are left, and to 0.51 where 1 % are (means of 2 rates and 3 seeds, which differ more).
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.momentum is not None:
            module.momentum = max(module.momentum, 1 - left ** (1 / steps))
