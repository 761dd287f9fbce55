"""Several teachers as one: their probabilities averaged."""

import math

import torch
from torch import Tensor


def average_members(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the logits (B, K) whose softmax at this temperature is the mean of the members' softmaxes at it.

    `temperature * (logsumexp over m of log_softmax(z_m / temperature) - log M)`: so every objective, which takes one
    teacher's logits, learns from the averaged probabilities. They hold at this temperature alone. The mean of the
    logits would be another thing: the normalised geometric mean of the probabilities, in which one member that is sure
    that it is not this class speaks louder than all the others.

    Args:
        logits: float (B, M, K), M members, 1 or more.
        temperature: above 0.
    """
    members = torch.log_softmax(logits / temperature, dim=2)
    return temperature * (torch.logsumexp(members, dim=1) - math.log(logits.shape[1]))
