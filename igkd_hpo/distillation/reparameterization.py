"""What a student learns in the place of the weights of its convolutions and linear layers, and these weights of it.

Parametrizations are torch's own: the layers stay where and what they are, and compute their weight when they run.
"""

import copy
from collections import Counter
from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from igkd_hpo.distillation.branches import Branches, has_middle
from igkd_hpo.distillation.factors import Factors, split
from igkd_hpo.distillation.hyperparameter import Value
from igkd_hpo.distillation.sparsity import Power, Pruned
from igkd_hpo.errors import UsageError

AS_THEY_ARE: Mapping[str, Value] = {"overparameterize": "none", "powerprop_alpha": 1.0, "sparsity": 0.0}
"""The hyperparameters of a student that learns its weights and nothing else."""
_OURS = (Factors, Branches, Power, Pruned)
_MARK = "parametrizations.weight."


def weighted_layers(body: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers that learn a weight, which is theirs alone and no parametrization."""
    owners = Counter(id(parameter) for module in body.modules() for parameter in module.parameters(recurse=False))
    return [
        layer
        for layer in body.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
        and not parametrize.is_parametrized(layer)
        and (weight := layer._parameters.get("weight")) is not None
        and weight.requires_grad
        and owners[id(weight)] == 1
    ]


def reparameterize(body: nn.Module, hyperparameters: Mapping[str, Value]) -> None:
    """Parametrize the weights in place, so that they are what they were but for rounding.

    Args:
        hyperparameters: of which `overparameterize`, `powerprop_alpha` and `sparsity` matter, and `architecture` for
            messages. The first acts on matrices (mpo), or kernels larger than 1x1 (branches), the other two on every
            weight of `weighted_layers`.

    Raises:
        UsageError: there is no layer on which they act.
    """
    called = hyperparameters["architecture"]
    how, alpha = str(hyperparameters["overparameterize"]), float(hyperparameters["powerprop_alpha"])
    sparsity = float(hyperparameters["sparsity"])
    layers, n_overparameterized = weighted_layers(body), 0
    for layer in layers:
        weight = layer.weight.detach().clone()
        if how == "mpo" and _is_factorable(layer):
            _register(layer, Factors(weight.shape))
        elif how == "branches" and isinstance(layer, nn.Conv2d) and has_middle(layer.kernel_size):
            _register(layer, Branches(layer))
        n_overparameterized += parametrize.is_parametrized(layer)
        if alpha != 1:
            _register(layer, Power(alpha))
        if sparsity > 0:
            _register(layer, Pruned(weight))
        if parametrize.is_parametrized(layer):
            with torch.no_grad():
                layer.weight = weight  # through all of them, from the last to the first
    if how != "none" and not n_overparameterized:
        wanted = {
            "mpo": "convolutions of 1x1 without groups, or linear layers, whose channels are products of three numbers",
            "branches": "convolutions with an odd kernel larger than 1x1",
        }[how]
        raise UsageError(f"overparameterize is {how}, and {called} has no {wanted}; write none")
    if not layers and (alpha != 1 or sparsity > 0):
        name, off = ("sparsity", 0) if sparsity > 0 else ("powerprop_alpha", 1)
        raise UsageError(
            f"{name} is {hyperparameters[name]}, and {called} has no convolution or linear layer with a weight of its "
            f"own; write {off}"
        )


def _is_factorable(layer: nn.Conv2d | nn.Linear) -> bool:
    if isinstance(layer, nn.Conv2d) and (layer.kernel_size != (1, 1) or layer.groups > 1):
        return False
    return None not in (split(layer.weight.shape[0]), split(layer.weight.shape[1]))


def _register(layer: nn.Module, parametrization: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", parametrization.to(layer.weight.device))  # type: ignore[arg-type]


def is_reparameterized(body: nn.Module) -> bool:
    """Return whether `merged` would be another than the body."""
    return any(_is_ours(module) for module in body.modules())


def _is_ours(layer: nn.Module) -> bool:
    if not parametrize.is_parametrized(layer, "weight"):
        return False
    return any(isinstance(part, _OURS) for part in layer.parametrizations.weight)  # type: ignore[union-attr]


def merged(body: nn.Module) -> nn.Module:
    """Return a copy with plain weights, by the names that these had before; the body itself where it has them."""
    if not is_reparameterized(body):
        return body
    body = copy.deepcopy(body)
    for layer in list(body.modules()):
        if not _is_ours(layer):
            continue
        weight = nn.Parameter(layer.weight.detach().clone())  # type: ignore[operator]
        # Not torch's remove_parametrizations: it takes the weight off the class, which the original shares.
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer.parametrizations
        others = dict(layer._parameters)
        layer._parameters.clear()
        layer._parameters.update({"weight": weight, **others})  # as the constructors of these layers order them
    return body


def learned_in_place_of(body: nn.Module, names: Collection[str]) -> frozenset[str]:
    """Return the names of the body's parameters that stand for those of these names, or are them."""

    def plain(name: str) -> str:
        prefix, mark, _ = name.rpartition(_MARK)
        return f"{prefix}weight" if mark else name

    return frozenset(name for name, _ in body.named_parameters() if name in names or plain(name) in names)
