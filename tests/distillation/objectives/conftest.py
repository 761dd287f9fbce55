from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from igkd_hpo.distillation.objectives import OBJECTIVES, Objective, make_objective

MakeLogits = Callable[..., Tensor]
SETTINGS = {"dkd_beta": 2.0, "foster_beta": 0.97}
BALANCED = torch.full((4,), 50)
"""The images of each class of four: with as many of each, all that holds for `kd` holds for what weighs classes."""


@pytest.fixture(params=OBJECTIVES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objective(name: str) -> Objective:
    return make_objective(name, SETTINGS, BALANCED)


@pytest.fixture(scope="session")
def logits() -> MakeLogits:
    """Make random logits of about the size that a trained network gives."""

    def make(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3

    return make
