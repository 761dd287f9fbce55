"""Make Optuna's pruners by the study file's names, and explain why one of them ended a trial."""

import warnings

import numpy as np
from optuna import pruners
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config import pruner as config
from igkd_hpo.config.strata import Strata
from igkd_hpo.search.strata import see_within, stratum_of
from igkd_hpo.words import percent

STARTUP_TRIALS = 5
"""COMPLETE trials before a percentile means anything."""


def make_pruner(pruner: config.Pruner, epochs: int) -> pruners.BasePruner:
    """Make the pruner, the same in every worker; Optuna's steps are epochs from 1 to `epochs`."""
    match pruner:
        case config.PercentilePruner() | config.MedianPruner():
            return _percentile_pruner(pruner)
        case config.SuccessiveHalvingPruner(reduction_factor=factor):
            return pruners.SuccessiveHalvingPruner(pruner.first_rung(epochs), reduction_factor=factor)
        case config.HyperbandPruner(grace_period=grace, reduction_factor=factor):
            # Without max_resource each process finds its own from the trials that it has seen.
            return pruners.HyperbandPruner(min(grace, epochs), max_resource=epochs, reduction_factor=factor)
        case config.NoPruner():
            return pruners.NopPruner()


def why_pruned(
    pruner: config.Pruner, trial: FrozenTrial, trials: list[FrozenTrial], strata: Strata | None = None
) -> str:
    """Explain in one line which bar the trial's best or newest accuracy missed, as far as that is known afterwards.

    Value and bar come first, so that a narrow terminal cuts neither. `trials` are all of the study.
    """
    if strata is not None:
        stratum = stratum_of(strata, trial)
        why = why_pruned(pruner, trial, see_within(strata, stratum, trials))
        return f"{why}, among students {stratum or 'of no stratum'}"
    epoch = max(trial.intermediate_values)
    match pruner:
        case config.PercentilePruner() | config.MedianPruner():
            keep = _kept_percentage(pruner)
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


def _kept_percentage(pruner: config.PercentilePruner | config.MedianPruner) -> float:
    return pruner.keep if isinstance(pruner, config.PercentilePruner) else 50.0


def _percentile_pruner(pruner: config.PercentilePruner | config.MedianPruner) -> pruners.BasePruner:
    keep, first_step = _kept_percentage(pruner), pruner.grace_period + 1  # the first that may be pruned on
    wrapped = pruners.PercentilePruner(keep, STARTUP_TRIALS, first_step, n_min_trials=STARTUP_TRIALS)
    if pruner.patience == 0:
        return wrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return pruners.PatientPruner(wrapped, pruner.patience)
