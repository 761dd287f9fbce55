"""Weights that are drawn towards 0 while they are learned, and those that are then set to 0.

Source: Powerpropagation, Schwarz et al. 2021, arXiv 2110.00296: w = theta |theta|^(alpha - 1), initialised so that w is
as without it. The published code prunes layer by layer, after the training, and the last layer half as much. Here all
layers are pruned together, halfway, and the rest of the training mends what that did: each epoch from then on, the last
one above all, validates the student that is shipped.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Power(nn.Module):
    """The parametrization w = theta |theta|^(alpha - 1) of a weight, see torch.nn.utils.parametrize.

    The gradient with respect to theta is alpha |theta|^(alpha - 1) times that with respect to w, so that large weights
    learn fast and small ones stay small; 0 stays 0.
    """

    def __init__(self, alpha: float) -> None:
        """Take an exponent of 1 or more; 1 is no change at all."""
        super().__init__()
        self._alpha = alpha

    def forward(self, theta: Tensor) -> Tensor:
        """Return w; in this form, and not the one above, torch's gradient of it is finite at 0."""
        return theta.sign() * theta.abs().pow(self._alpha)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the theta of a weight, so that a student begins with the weights that it would have without it."""
        return weight.sign() * weight.abs().pow(1 / self._alpha)


class Pruned(nn.Module):
    """The parametrization of a weight of which some numbers are 0 for good, see torch.nn.utils.parametrize."""

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Take a weight, of which everything is kept until `prune`."""
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with 0 for what is not kept, which then has no gradient either."""
        return weight * self.kept

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight itself."""
        return weight


class Pruning:
    """The one moment of a training at which its smallest weights are set to 0, for good."""

    def __init__(self, network: nn.Module, sparsity: float, steps: int) -> None:
        """Take a network whose weights can be pruned where `sparsity` is above 0, and the training's count of steps.

        ValueError where there are none that can be.
        """
        self._network, self._sparsity = network, sparsity
        self._at = steps // 2 if sparsity > 0 else None
        if sparsity > 0 and not _prunable(network):
            raise ValueError(f"sparsity is {sparsity}, and no weight of the network can be pruned; reparameterize it")

    def before(self, step: int) -> None:
        """Prune if this step, counted from 0, is the first of the second half; the device is not waited for."""
        if step == self._at:
            prune(self._network, self._sparsity)


@torch.no_grad()
def prune(network: nn.Module, sparsity: float) -> None:
    """Set the share `sparsity`, in [0, 1), of all weights that are parametrized by `Pruned` to 0, the smallest first.

    They are compared over all layers, so that one can lose more than another; of equals the first go.
    """
    layers = _prunable(network)
    sizes = torch.cat([weight.abs().flatten() for weight, _ in layers])
    smallest = torch.argsort(sizes, stable=True)[: round(sparsity * len(sizes))]
    kept = torch.ones_like(sizes, dtype=torch.bool).index_fill_(0, smallest, False)
    parts = torch.split(kept, [weight.numel() for weight, _ in layers])
    for (weight, pruned), part in zip(layers, parts, strict=True):
        pruned.kept.copy_(part.view(weight.shape))


def _prunable(network: nn.Module) -> list[tuple[Tensor, Pruned]]:
    """Return the weights, as they are used, and what prunes each."""
    return [
        (layer.weight, part)  # type: ignore[misc]
        for layer in network.modules()
        if parametrize.is_parametrized(layer, "weight")
        for part in layer.parametrizations.weight  # type: ignore[union-attr]
        if isinstance(part, Pruned)
    ]


def undecayed(network: nn.Module) -> list[nn.Parameter]:
    """Return what is parametrized by `Power`, which weight decay leaves alone.

    For alpha 2 the square of theta is |w|, and decay of it would be another penalty than the one that is asked for.
    """
    return [
        parameter
        for layer in network.modules()
        if parametrize.is_parametrized(layer, "weight")
        for parts in [layer.parametrizations.weight]  # type: ignore[union-attr]
        if any(isinstance(part, Power) for part in parts)  # type: ignore[union-attr]
        for parameter in parts.parameters()  # type: ignore[union-attr]
    ]
