"""Optuna's pruners by the study file's names, and what to say about a trial that one of them ended."""

import warnings

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config import study as config
from igkd_hpo.words import percent

STARTUP_TRIALS = 5
"""COMPLETE trials before a percentile means anything."""


def make_pruner(pruner: config.Pruner, epochs: int) -> BasePruner:
    """The pruner, the same in every worker; Optuna's steps are epochs from 1 to `epochs`."""
    match pruner:
        case config.PercentilePruner(keep=keep):
            return _percentile(keep, pruner.grace_period, pruner.patience)
        case config.MedianPruner():
            return _percentile(50.0, pruner.grace_period, pruner.patience)
        case config.SuccessiveHalvingPruner(grace_period=grace, reduction_factor=factor):
            return SuccessiveHalvingPruner(min_resource=grace or max(1, epochs // 12), reduction_factor=factor)
        case config.HyperbandPruner(grace_period=grace, reduction_factor=factor):
            # Without max_resource each process finds its own from the trials that it has seen.
            return HyperbandPruner(min_resource=min(grace, epochs), max_resource=epochs, reduction_factor=factor)
        case config.NoPruner():
            return NopPruner()


def why_pruned(pruner: config.Pruner, trial: FrozenTrial, trials: list[FrozenTrial]) -> str:
    """One line: the trial's best or newest accuracy and the bar it missed, as far as that can be told afterwards.

    Value and bar come first, so that a narrow terminal cuts neither.

    Args:
        trial: with its newest epoch reported.
        trials: all trials of the study.
    """
    epoch = max(trial.intermediate_values)
    match pruner:
        case config.PercentilePruner() | config.MedianPruner():
            keep = pruner.keep if isinstance(pruner, config.PercentilePruner) else 50.0
            complete = [t for t in trials if t.state is TrialState.COMPLETE and epoch in t.intermediate_values]
            bar = np.percentile([t.intermediate_values[epoch] for t in complete], 100 - keep)
            best = max(trial.intermediate_values.values())
            return (
                f"{percent(best)} by epoch {epoch}, below the bar of {percent(float(bar))} "
                f"(the best {keep:g} % of {len(complete)} completed trials)"
            )
        case config.SuccessiveHalvingPruner(reduction_factor=factor) | config.HyperbandPruner(reduction_factor=factor):
            value = trial.intermediate_values[epoch]
            return f"{percent(value)} at epoch {epoch}, not among the best 1 in {factor} there"
        case config.NoPruner():
            raise ValueError("no pruner, so nothing was pruned")


def _percentile(keep: float, grace_period: int, patience: int) -> BasePruner:
    pruner: BasePruner = PercentilePruner(
        keep,
        n_startup_trials=STARTUP_TRIALS,
        n_warmup_steps=grace_period + 1,  # the first step that may be pruned on
        n_min_trials=STARTUP_TRIALS,
    )
    if patience == 0:
        return pruner
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PatientPruner(pruner, patience)
