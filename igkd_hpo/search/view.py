"""View of a study in which Optuna's samplers and pruners see other trials than are recorded."""

import copy
from collections.abc import Callable, Container
from functools import partial
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.search.strata import see_within, stratum_of
from igkd_hpo.search.study import SearchStudy

See = Callable[[Container[TrialState] | None], list[FrozenTrial]]
"""Returns the trials that are seen of these states, None: of all, by number; they are shared, so not to be changed."""


class _SeenStorage:
    """Optuna's storage for everything but reading all trials.

    A subclass of Optuna's study would not do: Hyperband makes studies of its own, which share the storage alone.
    """

    def __init__(self, study: SearchStudy, see: See) -> None:
        self._storage, self._study_id, self._see = study.storage, study.study_id, see

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_study_id_from_name(self, study_name: str) -> int:  # whoever makes a study of Optuna's asks
        return self._study_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        seen = self._see(states)
        return copy.deepcopy(seen) if deepcopy else seen


def view_study(study: SearchStudy, see: See, sampler: BaseSampler | None = None) -> optuna.Study:
    """Return Optuna's study as its sampler and its pruner are to see it."""
    seen = cast("BaseStorage", _SeenStorage(study, see))
    return optuna.Study(study.name, seen, sampler, study.pruner)


def compared_with(study: SearchStudy, trial: FrozenTrial) -> optuna.Study:
    """Return Optuna's study with the trials that a pruner compares this one with: those of its own size."""
    if (strata := study.config.strata) is None:
        return view_study(study, partial(study.storage.get_trials_to_compare, study.study_id))

    def see(states: Container[TrialState] | None) -> list[FrozenTrial]:
        trials = study.storage.get_all_trials(study.study_id, deepcopy=False, states=states)
        return see_within(strata, stratum_of(strata, trial), trials)

    return view_study(study, see)
