"""Plan of a ladder's arms: the student of each rung, once distilled and once plain, with the settings of one trial."""

from collections.abc import Sequence

from optuna.trial import TrialState

from igkd_hpo.compression.rung import Rung
from igkd_hpo.config.controls import PLAIN, replaced
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.plan import best_candidates, candidate_of_trial
from igkd_hpo.distillation.recipe import KNOB_OF
from igkd_hpo.errors import UsageError
from igkd_hpo.search.best import completed_trials
from igkd_hpo.search.confirmation_study import Arm, arms_of, open_linked
from igkd_hpo.search.counts import count
from igkd_hpo.search.study import SearchStudy

DISTILLED, PLAIN_KIND = "distilled", "plain"
"""Kinds of a ladder's arms."""


def configuration(study: SearchStudy, number: int | None) -> Arm:
    """Return the configuration whose settings all students get: a trial's, or the best that the search completed.

    Raises:
        NoCompletedTrial: the search completed none.
        UsageError: there is no such COMPLETE trial.
    """
    if number is None:
        return best_candidates(study, 1)[0]
    trials = study.trials()
    if not 0 <= number < len(trials):
        raise UsageError(f"--trial {number}: study {study.name} has trials 0 to {len(trials) - 1}; give one of them")
    trial = trials[number]
    if trial.state is not TrialState.COMPLETE or not {"hyperparameters", "seed"} <= trial.user_attrs.keys():
        state = count([trial]).in_words()
        raise UsageError(f"--trial {number} of {study.name} is not COMPLETE ({state}); give one that is")
    return candidate_of_trial(study, trial)


def is_taught(arm: Arm) -> bool:
    """Return whether a configuration asks anything of the teacher, so that it differs from plain training."""
    return _plain(arm).training_key != arm.training_key


def check_taught(arm: Arm, study: SearchStudy | None, config: Study) -> None:
    """Raise UsageError where a configuration asks nothing of the teacher: there is nothing to compare."""
    if is_taught(arm):
        return
    advice = "let alpha, or another weight that asks for the teacher, be above 0, and search again under a new name"
    if study is not None:
        arms = [candidate_of_trial(study, trial) for trial in completed_trials(study)]
        if taught := sorted(filter(is_taught, arms), key=lambda one: -(one.search_accuracy or 0)):
            advice = f"--trial {taught[0].trial} is the best that does"
    raise UsageError(f"{arm.name} of {config.name} asks nothing of the teacher, so it has no distilled form; {advice}")


def planned_arms(arm: Arm, rungs: Sequence[Rung]) -> tuple[Arm, ...]:
    """Return two arms for each rung that is not left out: distilled, with all settings of `arm`, and plain."""
    arms = []
    for rung in rungs:
        if rung.left_out is None:
            one = Arm(
                names=(f"{rung.title} {DISTILLED}",),
                kinds=(DISTILLED,),
                trial=arm.trial,
                search_accuracy=None,
                hyperparameters={**arm.hyperparameters, **rung.student},
            )
            arms += [one, _plain(one, f"{rung.title} {PLAIN_KIND}")]
    return tuple(arms)


def _plain(arm: Arm, name: str = "") -> Arm:
    """Return the same student and training, with everything that the teacher gives taken out."""
    return Arm(
        names=(name or arm.name,),
        kinds=(PLAIN_KIND,),
        trial=arm.trial,
        search_accuracy=None,
        hyperparameters=replaced(arm.hyperparameters, PLAIN),
    )


def begun_with(study: SearchStudy) -> int | None:
    """Return the trial whose settings the students of a study's ladder have; None where there is no ladder yet."""
    linked = open_linked(study.storage, study.name, "ladder")
    arms = () if linked is None else arms_of(linked)
    return arms[0].trial if arms else None


def check_same_settings(linked: SearchStudy, arm: Arm) -> None:
    """Raise UsageError where a ladder's students are trained with other settings than those of `arm`."""
    for one in arms_of(linked):
        if one.kinds == (DISTILLED,) and _settings(one) != _settings(arm):
            whose = "an earlier study file" if one.trial is None else f"trial {one.trial}"
            goes_on = "" if one.trial in (None, arm.trial) else f"--trial {one.trial} goes on with them, or "
            raise UsageError(
                f"study {linked.name} has the settings of {whose}, and not those of {arm.name}; {goes_on}"
                f"`igkd-hpo delete {linked.name}` and begin a new one"
            )


def _settings(arm: Arm) -> dict[str, Value]:
    """Select what is not the student itself."""
    return {name: value for name, value in arm.hyperparameters.items() if name not in ("architecture", *KNOB_OF)}
