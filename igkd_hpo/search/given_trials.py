"""Trials that a study is given before it searches: controls, what is known to be good, another study's best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study

EXCESS = "surplus"
"""Reason of a trial that waited when enough others had finished."""


@dataclass(frozen=True, kw_only=True)
class GivenTrial:
    """A trial to run before the sampler is asked.

    Args:
        params: what of the searched hyperparameters is given, as Optuna stores it.
        attributes: user attributes; `control` or `known_good` says what it is.
    """

    params: Mapping[str, Value]
    attributes: Mapping[str, Any]

    def is_that_of(self, trial: FrozenTrial) -> bool:
        """Tell whether a trial in the database is this one."""
        if "control" in self.attributes:
            return bool(trial.user_attrs.get("control") == self.attributes["control"])
        return "known_good" in trial.user_attrs and trial.system_attrs.get("fixed_params") == self.params


def given_by(study: Study) -> list[GivenTrial]:
    """Return the trials that a study file gives, in the order in which they run."""
    controls = (make_control(name, study.hyperparameters) for name in study.controls)
    return [
        *(
            GivenTrial(params=one.params, attributes={"control": one.name, "hyperparameters": one.hyperparameters})
            for one in controls
        ),
        *(known_good(study, values, "the study file") for values in study.known_good),
    ]


def known_good(study: Study, values: Mapping[str, Value], source: str) -> GivenTrial:
    """Make the trial of a configuration; what it leaves out of the search space is left to the sampler."""
    params = {name: values[name] for name in study.hyperparameters.searched() if name in values}
    return GivenTrial(params=params, attributes={"known_good": source})


def enqueue_missing(
    created: optuna.Study, given: Iterable[GivenTrial], trials: Sequence[FrozenTrial], *, room: int
) -> int:
    """Enqueue those that no trial is yet, as far as there is room, and return how many.

    A total too small for all ended those that still waited; they are missing too.
    """
    missing = [one for one in given if all(map(_ended_as_excess, filter(one.is_that_of, trials)))][: max(0, room)]
    for one in missing:
        created.enqueue_trial(dict(one.params), user_attrs=dict(one.attributes))
    return len(missing)


def _ended_as_excess(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and trial.user_attrs.get("reason") == EXCESS
