"""Samplers of a study file, by Optuna's names and with Optuna's options: how the next configuration is chosen."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from igkd_hpo.config.space import LARGEST_SEED, Frozen

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class TpeSampler(Frozen):
    """Tree-structured Parzen estimator: learns from all trials so far, from pruned ones and limits too."""

    name: Literal["tpe"] = "tpe"
    """Names this sampler."""
    seed: Seed = 0
    """Seed of the choice."""
    n_startup_trials: int = Field(default=10, ge=1, exclude_if=lambda number: number == 10)
    """Trials before it learns; those before are random."""
    n_ei_candidates: int = Field(default=24, ge=1, exclude_if=lambda number: number == 24)
    """Configurations that are weighed against each other for each trial."""
    multivariate: bool = Field(default=True, exclude_if=lambda on: on)
    """Whether hyperparameters are chosen together, not each by itself."""
    constant_liar: bool = Field(default=True, exclude_if=lambda on: on)
    """Whether it keeps away from what other workers train just now."""


class GpSampler(Frozen):
    """Gaussian process: the most from few trials, in seconds for each; learns from COMPLETE ones alone."""

    name: Literal["gp"]
    """Names this sampler."""
    seed: Seed = 0
    """Seed of the choice."""
    n_startup_trials: int = Field(default=10, ge=1)
    """COMPLETE trials before it learns; those before are random."""
    deterministic_objective: bool = False
    """Whether a configuration is believed to have the same value with every seed."""


class QmcSampler(Frozen):
    """A sequence that covers the space more evenly than chance, and does not learn; words are spread too."""

    name: Literal["qmc"]
    """Names this sampler."""
    seed: Seed = 0
    """Seed of the choice."""
    qmc_type: Literal["sobol", "halton"] = "sobol"
    """Which sequence."""
    scramble: bool = False
    """Whether it begins elsewhere with every seed."""


class RandomSampler(Frozen):
    """Chance, which does not learn."""

    name: Literal["random"]
    """Names this sampler."""
    seed: Seed = 0
    """Seed of the choice."""


class GridSampler(Frozen):
    """Every configuration once, in an order by chance; each range needs a step or choices."""

    name: Literal["grid"]
    """Names this sampler."""
    seed: Seed = 0
    """Seed of the order."""


def _name(value: Any) -> Any:
    return value.get("name", "tpe") if isinstance(value, dict) else getattr(value, "name", None)


Sampler = Annotated[
    Annotated[TpeSampler, Tag("tpe")]
    | Annotated[GpSampler, Tag("gp")]
    | Annotated[QmcSampler, Tag("qmc")]
    | Annotated[RandomSampler, Tag("random")]
    | Annotated[GridSampler, Tag("grid")],
    Discriminator(_name, custom_error_type="sampler_type", custom_error_message="tpe, gp, qmc, random, grid"),
]
LARGEST_GRID = 10_000
"""Configurations of a grid; more are searched better by any other sampler."""
