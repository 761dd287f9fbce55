"""Begin a study with the best configurations of another one, as far as they lie in its search space."""

from dataclasses import dataclass

from igkd_hpo.config.known_good import misfits
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.metrics import measured
from igkd_hpo.errors import NoCompletedTrial, UsageError
from igkd_hpo.search.best import accuracy, completed_trials
from igkd_hpo.search.given_trials import GivenTrial, enqueue_missing, known_good
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import counted

MOST = 5
"""Configurations that are carried over: a sampler begins with ten random ones, and these are better."""


@dataclass(frozen=True, kw_only=True)
class CarriedOver:
    """Configurations of another study, and what people should know of them, in lines."""

    trials: tuple[GivenTrial, ...]
    told: tuple[str, ...]


def carry_over(other: SearchStudy, study: Study) -> CarriedOver:
    """Choose the best COMPLETE trials of another study that fit into the space of `study`; its controls have its own.

    They are trained anew, so the other one may have other images, epochs or limits.

    Raises:
        UsageError: it is the study itself, or none of its trials fits.
        NoCompletedTrial: it has none.
    """
    if other.name == study.name:
        raise UsageError(f"--from {other.name} is the study itself; name another, or leave it out to go on")
    searched, later = study.hyperparameters.searched(), other.config.hyperparameters.fixed()
    completed = [trial for trial in completed_trials(other) if "control" not in trial.user_attrs]
    if not completed:
        raise NoCompletedTrial(f"--from {other.name}: it has no completed trial but controls; leave it out")
    chosen: list[GivenTrial] = []
    told, left_out = [], []
    for trial in sorted(completed, key=lambda trial: (-accuracy(trial), trial.number)):
        known = later | trial.user_attrs["hyperparameters"]
        values = {name: known[name] for name in searched if name in known}
        title = f"trial {trial.number} of {other.name}"
        given = known_good(study, values, title)
        if faults := misfits(values, study.hyperparameters):
            left_out.append(f"{title} lies outside the search space: {faults[0]}")
        elif given.params not in [one.params for one in chosen]:
            chosen.append(given)
            told.append(f"begins with {title}, which had {measured(accuracy(trial), other.config.metric)} there")
        if len(chosen) == MOST:
            break
    if not chosen:
        raise UsageError(f"--from {other.name}: no trial of it fits here; {left_out[0]}; widen it, or leave --from out")
    if left_out:
        told.append(f"{counted(len(left_out), 'trial')} left out; {left_out[0]}")
    theirs = other.config.hyperparameters.searched()
    if alone := ", ".join(name for name in searched if name not in theirs):
        told.append(f"{alone}: searched here alone; these begin with what {other.name} has it fixed at")
    if fixed := ", ".join(name for name in theirs if name not in searched):
        told.append(f"{fixed}: fixed here, and searched in {other.name}")
    return CarriedOver(trials=tuple(chosen), told=tuple(told))


def other_images(other: SearchStudy, study: SearchStudy) -> bool:
    """Tell whether two studies are known to be of different images."""
    theirs, ours = other.read().pins, study.read().pins
    return theirs is not None and ours is not None and theirs.dataset_sha256 != ours.dataset_sha256


def enqueue_carried(study: SearchStudy, carried: CarriedOver) -> int:
    """Enqueue what is not there yet and has room within the total, and return how many."""
    with study.transaction():
        trials, counts = study.trials(), study.counts()
        room = study.read().n_trials - counts.finished - counts.running - counts.waiting
        return enqueue_missing(study.optuna_study, carried.trials, trials, room=room)
