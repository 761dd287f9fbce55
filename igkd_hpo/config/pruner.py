"""Pruners of a study file: which trials are stopped early."""

from typing import Annotated, Literal

from pydantic import Field

from igkd_hpo.config.space import Frozen


class PercentilePruner(Frozen):
    """A pruner that stops a trial whose best result so far is not among the best `keep` per cent at that epoch."""

    name: Literal["percentile"]
    """Names this pruner."""
    keep: float = Field(default=50, gt=0, lt=100)
    """Per cent of the trials that go on."""
    grace_period: int = Field(default=3, ge=0)
    """No trial is stopped in its first this many epochs."""
    patience: int = Field(default=0, ge=0)
    """Epochs in a row without a better result before a trial may be stopped."""


class MedianPruner(Frozen):
    """A pruner that stops a trial whose best result so far is below the median at that epoch."""

    name: Literal["median"]
    """Names this pruner."""
    grace_period: int = Field(default=3, ge=0)
    """No trial is stopped in its first this many epochs."""
    patience: int = Field(default=0, ge=0)
    """Epochs in a row without a better result before a trial may be stopped."""


class SuccessiveHalvingPruner(Frozen):
    """A pruner that keeps one trial in `reduction_factor` at epoch grace_period, then at that times the factor, …"""

    name: Literal["successive_halving"] = "successive_halving"
    """Names this pruner."""
    grace_period: int | None = Field(default=None, ge=1)
    """The first epoch at which trials are stopped; null: a twelfth of training.epochs, 1 at least."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in this many goes on."""

    def first_rung(self, epochs: int) -> int:
        """Return the first epoch at which trials of so many epochs are stopped."""
        return self.grace_period or max(1, epochs // 12)


def grace_of_few(epochs: int) -> int:
    """Return the grace period for a study of few trials: a third of the epochs.

    In replays of 24 recorded trials the default, a twelfth, cost the search 1.7 points on `digits` and 2.2 on
    photographs, a third 0.2 and 0.3; in 68 trials of `digits` 0.2 and 0.1 (docs/experiments.md).
    """
    return max(1, epochs // 3)


class HyperbandPruner(Frozen):
    """Several successive halvings with different grace periods, side by side."""

    name: Literal["hyperband"]
    """Names this pruner."""
    grace_period: int = Field(default=1, ge=1)
    """The first epoch at which trials are stopped."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in this many goes on."""


class NoPruner(Frozen):
    """No pruner: every trial runs to its end."""

    name: Literal["none"]
    """Names this pruner."""


Pruner = Annotated[
    PercentilePruner | MedianPruner | SuccessiveHalvingPruner | HyperbandPruner | NoPruner, Field(discriminator="name")
]
