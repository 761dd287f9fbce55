"""View of a study in which Optuna's samplers and pruners see other trials than are recorded."""

from collections.abc import Callable, Container
from functools import partial
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.strata import see_within, stratum_of
from igkd_hpo.search.study import SearchStudy

See = Callable[[list[FrozenTrial]], list[FrozenTrial]]
"""Returns the trials that are seen, in the same order; those of the storage are shared, so not to be changed."""


class _SeenStorage:
    """Optuna's storage for everything but reading all trials.

    A subclass of Optuna's study would not do: Hyperband makes studies of its own, which share the storage alone.
    """

    def __init__(self, storage: SharedStorage, see: See) -> None:
        self._storage, self._see = storage, see

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._see(self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states))


def view_study(study: SearchStudy, see: See, sampler: BaseSampler | None = None) -> optuna.Study:
    """Return Optuna's study as its sampler and its pruner are to see it."""
    seen = cast("BaseStorage", _SeenStorage(study.storage, see))
    return optuna.Study(study.name, seen, sampler, study.pruner)


def compared_with(study: SearchStudy, trial: FrozenTrial) -> optuna.Study:
    """Return Optuna's study with the trials that a pruner compares this one with: those of its own size."""
    if (strata := study.config.strata) is None:
        return study.optuna_study
    within = partial(see_within, strata, stratum_of(strata, trial))
    return view_study(study, within)
