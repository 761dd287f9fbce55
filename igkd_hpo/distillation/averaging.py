"""The running average of a network's weights, without a wait for the device."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class RunningAverage:
    """The exponential running average of a network's weights, batch statistics and other float buffers.

    The first step is taken as it is, and counters always are. torch's own `AveragedModel` computes the same, but keeps
    or reads its count of steps on the host, for which a GPU is waited for twice a step.

    Source: Polyak and Juditsky 1992, in the exponential form.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with a copy of the network, whose tensors are read after each step; `decay` is in [0, 1)."""
        self.network = copy.deepcopy(network)
        self._decay = decay
        self._begun = False
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network as it is after a step."""
        weight = 1 - self._decay if self._begun else 1.0
        torch._foreach_lerp_([mine for mine, _ in self._floats], [new for _, new in self._floats], weight)
        for mine, new in self._counters:
            mine.copy_(new)
        self._begun = True

    def state_dict(self) -> dict[str, Any]:
        """Return what going on needs; its tensors are the average's own."""
        return {"network": self.network.state_dict(), "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self._begun = state["begun"]


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
