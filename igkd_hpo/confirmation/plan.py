"""Plan of a confirmation's arms: the best of a search, the first of them with parts taken out, and the controls."""

from collections.abc import Sequence
from itertools import pairwise

from optuna.trial import FrozenTrial

from igkd_hpo.config.controls import PLAIN, ControlName, make_control, replaced
from igkd_hpo.config.space import Value
from igkd_hpo.config.strata import Strata
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS
from igkd_hpo.errors import NoCompletedTrial, StudyFileError, UsageError
from igkd_hpo.search.best import accuracy, completed_trials
from igkd_hpo.search.confirmation_study import Arm, arms_of, merge_arms
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.frontier import frontier
from igkd_hpo.search.strata import strata_status
from igkd_hpo.search.study import SearchStudy

_WITHOUT_IG = {key: value for key, value in PLAIN.items() if HYPERPARAMETERS[key].role is Role.MAPS}
PARTS: dict[str, tuple[str, dict[str, Value]]] = {
    "without_ig": ("without IG", _WITHOUT_IG),
    "without_kd": ("without KD", {key: value for key, value in PLAIN.items() if key not in _WITHOUT_IG}),
    "without_both": ("without both", PLAIN),
}
"""Parts of a configuration that can be taken out, by kind: a name, and the values that take the part out."""


def best_candidates(study: SearchStudy, top: int) -> list[Arm]:
    """Return the `top` best configurations that the search completed, the best first; fewer where there are no more.

    Raises:
        NoCompletedTrial: there is none; controls are not the search's.
    """
    completed = [trial for trial in completed_trials(study) if "control" not in trial.user_attrs]
    if not completed:
        counts = study.counts()
        raise NoCompletedTrial(
            f"study {study.name} has no completed trial of its search ({counts.in_words()}, controls included); "
            f"{counts.how_to_complete(study.name)}"
        )
    distinct: dict[str, Arm] = {}
    for trial in sorted(completed, key=lambda trial: (-accuracy(trial), trial.number)):
        arm = candidate_of_trial(study, trial)
        distinct.setdefault(arm.training_key, arm)
    return list(distinct.values())[:top]


def frontier_candidates(study: SearchStudy, top: int) -> list[Arm]:
    """Return the configurations of the frontier over the parameters that are told apart, the smallest student first.

    A study with strata has chosen its sizes: of it, the best of each stratum. Of more than `top`, the smallest student
    and the largest steps up are taken.

    Raises:
        UsageError: no step up in size is larger than the interval of one seed, fewer than 2 strata have a completed
            trial, or `top` is below 2.
    """
    if top < 2:
        raise UsageError(f"--top {top} leaves no step to confirm with --frontier; give 2 or more")
    # What the confirmation has trained so far must not change what it trains: the same command goes on.
    trials, strata = study.trials(), study.config.strata
    if strata is None:
        found = [step.trial for step in frontier(study, "parameters", trials, confirmed=False).told_apart]
        why = f"no larger student of {study.name} is better by more than another seed may be"
    else:
        found = _best_of_strata(study, strata, trials)
        why = f"fewer than two strata of {study.name} have a completed trial of its search"
    if len(found) < 2:
        raise UsageError(
            f"--frontier: {why}, so there is no step to confirm; `igkd-hpo confirm {study.name}` confirms the best few"
        )
    steps = [trials[number] for number in found]
    gains = {after.number: accuracy(after) - accuracy(before) for before, after in pairwise(steps)}
    largest = sorted(gains, key=lambda number: -gains[number])[: top - 1]
    return [candidate_of_trial(study, trial) for trial in steps if trial is steps[0] or trial.number in largest]


def _best_of_strata(study: SearchStudy, strata: Strata, trials: Sequence[FrozenTrial]) -> list[int]:
    """Return the numbers of the best trials of the strata that have a completed one, controls left out."""
    searched = [trial for trial in completed_trials(study, trials) if "control" not in trial.user_attrs]
    found = strata_status(strata, searched)
    return [stratum.best_trial for stratum in found if stratum.best_trial is not None]


def candidate_of_trial(study: SearchStudy, trial: FrozenTrial) -> Arm:
    """Return the configuration of a trial that completed."""
    return Arm(
        names=(f"trial {trial.number}",),
        kinds=("candidate",),
        trial=trial.number,
        search_accuracy=accuracy(trial),
        hyperparameters=study.config.hyperparameters.fixed() | trial.user_attrs["hyperparameters"],
    )


def candidate_of_file(study: Study) -> Arm:
    """Return the configuration of a study file without ranges. Raises UsageError when it has some."""
    if ranges := study.hyperparameters.searched():
        raise UsageError(f"{study.name} still searches {', '.join(ranges)}; launch it first, then confirm {study.name}")
    return Arm(
        names=(study.name,),
        kinds=("candidate",),
        search_accuracy=study.provenance.validation_accuracy if study.provenance else None,
        hyperparameters=study.hyperparameters.fixed(),
    )


def feasible_controls(study: SearchStudy) -> tuple[ControlName, ...]:
    """Return the study's controls, without those that its device would not allow."""
    beyond = {trial.user_attrs.get("control") for trial in study.trials() if is_infeasible(trial)}
    return tuple(name for name in study.config.controls if name not in beyond)


def planned_arms(study: Study, candidates: Sequence[Arm], controls: Sequence[ControlName]) -> tuple[Arm, ...]:
    """Return all arms, equal ones put together: the candidates, the first with parts taken out, the controls."""
    parts = [without(candidates[0], kind) for kind in PARTS]
    values = {name: make_control(name, study.hyperparameters).hyperparameters for name in controls}
    plain = [Arm(names=(name,), kinds=("control",), hyperparameters=values[name]) for name in controls]
    return merge_arms([*candidates, *parts, *plain])


def without(arm: Arm, kind: str) -> Arm:
    """Return an arm with a part taken out; the same in effect where it does not have that part."""
    name, values = PARTS[kind]
    return Arm(names=(f"{arm.name} {name}",), kinds=(kind,), hyperparameters=replaced(arm.hyperparameters, values))


def check_same_search(study: SearchStudy, linked: SearchStudy) -> None:
    """Raise StudyFileError when the trials that were confirmed are not those that the study has now."""
    trials = {trial.number: trial.user_attrs.get("hyperparameters", {}) for trial in study.trials()}
    for arm in arms_of(linked):
        if arm.trial is not None and not trials.get(arm.trial, {}).items() <= arm.hyperparameters.items():
            raise StudyFileError(
                f"study {linked.name} confirms an earlier study {study.name}: its {arm.name} trained with other "
                f"settings; `igkd-hpo delete {linked.name}`, then confirm again"
            )
