"""Samplers of a study file: how the next configuration is chosen."""

from typing import Literal

from pydantic import Field

from igkd_hpo.config.space import LARGEST_SEED, Frozen


class Sampler(Frozen):
    """The choice of the next configuration."""

    name: Literal["tpe", "random"] = "tpe"
    """tpe learns from the trials so far; random does not."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Seed of the choice."""
