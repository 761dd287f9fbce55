"""Remove the checkpoints of COMPLETE trials that nobody will ask for: all but the best few, within whatever limits."""

import shutil
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.search.best import accuracy, completed_trials
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.search.trial_cost import cost_of
from igkd_hpo.settings import Paths

BEST = 5
"""Trials whose checkpoints stay whatever they cost; the best one is read by `export --bundle` and `report`."""


def needed(completed: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the best few, and of each that is the best within some limits to its costs.

    That is one which no better one costs at most as much as, in every cost. Who is not needed never will be again, as
    long as no trial is deleted.
    """
    best_first = sorted(completed, key=lambda trial: (-accuracy(trial), trial.number))
    kept: list[int] = []
    costs = np.full((len(best_first), len(COSTS)), np.inf)  # an unknown one is within no limit
    n_frontier = 0
    for place, trial in enumerate(best_first):
        known = [np.inf if (cost := cost_of(trial, name)) is None else cost for name in COSTS]
        on_frontier = not (costs[:n_frontier] <= known).all(axis=1).any()
        if on_frontier:
            costs[n_frontier] = known
            n_frontier += 1
        if on_frontier or place < BEST:
            kept.append(trial.number)
    return set(kept)


def remove_checkpoints(study: SearchStudy, paths: Paths) -> None:
    """Remove this host's checkpoints of a search's COMPLETE trials that are not needed. Raises StorageError.

    A confirmation and a ladder need those of all their trials, until the test split was read.
    """
    if study.purpose != "search":
        return
    completed = completed_trials(study)
    kept = needed(completed)
    here = {path.name for path in (paths.checkpoints / study.folder).glob("trial-*")}
    for trial in completed:
        folder = paths.trial_checkpoints(study.folder, trial.number)
        if folder.name in here and trial.number not in kept:
            shutil.rmtree(folder, ignore_errors=True)
