"""The study that confirms another one: the same data and training, given arms, given seeds, nothing searched."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.controls import in_ranges
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import LARGEST_SEED, Limits, NoPruner, Study
from igkd_hpo.distillation.recipe import SETTING_OF, needs
from igkd_hpo.errors import UsageError
from igkd_hpo.search.storage import SharedStorage, storage_errors
from igkd_hpo.search.study import SearchStudy, create_or_open

SUFFIX = "-confirm"
SEED_DISTANCE = 1_000_000
"""Fresh seeds begin so far from the search's, whose trial n has training.seed + n."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration that is trained with every seed.

    Args:
        names: what it is called, for people; more than one where several arms turned out to be the same.
        kinds: what it is there for, in the same order: candidate, without_ig, without_kd, without_both or control.
        trial: of the confirmed study, whose configuration it is; None where there is none.
        search_accuracy: what that trial reached on validation, a fraction; None where there is no trial.
        hyperparameters: all of them, as it trains.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    trial: int | None = None
    search_accuracy: float | None = None
    hyperparameters: Mapping[str, Value]

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def effective(self) -> str:
        """What makes a difference in training, as text: two arms with the same are one."""
        values = dict(self.hyperparameters)
        if values["overlay_strength"] == 0:
            values["overlay_probability"] = 0.0
        unused = [key for key in values if needs(key) and all(values[weight] == 0 for weight in needs(key))]
        unused += [key for key, objectives in SETTING_OF.items() if values["objective"] not in objectives]
        for key in {*unused} - {"overlay_probability"}:
            values.pop(key, None)
        # 0 and 0.0 are the same setting
        told = {key: value if isinstance(value, str) else float(value) for key, value in values.items()}
        return json.dumps(told, sort_keys=True)


def merged(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms with equal ones put together, in the order of their first appearance."""
    found: dict[str, Arm] = {}
    for arm in arms:
        known = found.setdefault(arm.effective, arm)
        if known is arm:
            continue
        added = [(n, k) for n, k in zip(arm.names, arm.kinds, strict=True) if n not in known.names]
        found[arm.effective] = replace(
            known,
            names=(*known.names, *(name for name, _ in added)),
            kinds=(*known.kinds, *(kind for _, kind in added)),
        )
    return tuple(found.values())


def linked_name(name: str) -> str:
    """The name of the study that confirms the study of this name."""
    return f"{name[: 100 - len(SUFFIX)]}{SUFFIX}"  # a study's name has at most 100 characters


def open_linked(storage: SharedStorage, name: str) -> SearchStudy | None:
    """The study that confirms the study of this name, None where there is none yet."""
    with storage_errors(storage.url):
        try:
            study = SearchStudy(storage, linked_name(name))
        except KeyError:
            return None
    return study if study.confirms == name else None


def begun_in_words(linked: SearchStudy) -> str:
    """Say how far a confirmation is."""
    done = f"{linked.counts().finished} of {linked.read().n_trials} trainings of {linked.name} are done"
    return f"A confirmation has begun: {done}."


def parent_of(study: SearchStudy) -> SearchStudy:
    """The study that a confirmation confirms; the study itself where it confirms none, or one that is not there."""
    name = study.confirms
    with storage_errors(study.storage.url):
        try:
            return study if name is None else SearchStudy(study.storage, name)
        except KeyError:
            return study


def create_linked(storage: SharedStorage, parent: Study, *, pins: AssetPins) -> SearchStudy:
    """Make the study that confirms `parent`, or open it to go on.

    Raises:
        UsageError: another study has its name.
        StudyFileError, DataError, TeacherError: it confirms a study of that name that meant something else.
    """
    config = parent.model_copy(
        update={
            "name": linked_name(parent.name),
            "pruner": NoPruner(name="none"),
            "controls": (),
            "n_trials": 1,  # the true number follows the arms
            "limits": Limits(),  # what is confirmed was within them; timed once more, one of its seeds might not be
            "provenance": None,
        }
    )
    study = create_or_open(storage, config, n_trials=None, pins=pins, confirms=parent.name)
    if study.confirms != parent.name:
        raise UsageError(
            f"study {study.name!r} is not the confirmation of {parent.name!r}; rename one of them in a dashboard"
        )
    return study


def fresh_seeds(parent: Study, count: int) -> tuple[int, ...]:
    """The first `count` seeds of a confirmation; no trial of the search has them."""
    distance = SEED_DISTANCE if parent.training.seed <= LARGEST_SEED // 2 else -SEED_DISTANCE
    first = parent.training.seed + distance
    return tuple(range(first, first + count))


def arms_of(study: SearchStudy) -> tuple[Arm, ...]:
    """The arms of a linked study, in the order in which they were added."""
    later = study.config.hyperparameters.fixed()  # what the format got since then was at its default
    return tuple(
        Arm(
            names=tuple(arm["names"]),
            kinds=tuple(arm["kinds"]),
            trial=arm["trial"],
            search_accuracy=arm["search_accuracy"],
            hyperparameters=later | arm["hyperparameters"],
        )
        for arm in study.read().attributes.get("arms", [])
    )


def extend(study: SearchStudy, arms: Sequence[Arm], seeds: Sequence[int]) -> int:
    """Queue a trial for each arm and seed that has none, or whose trial failed; the number of those trials.

    Arms and seeds from before stay: every arm gets every seed. All of it happens or nothing does.

    Args:
        arms: the first is the one that others are parts of.
    """
    with study.transaction():
        joined = merged([*arms_of(study), *arms])
        study.storage.set_study_user_attr(study.study_id, "arms", [asdict(arm) for arm in joined])
        first = [arm.effective for arm in joined].index(arms[0].effective)
        study.storage.set_study_user_attr(study.study_id, "subject", first)
        trials = [trial for trial in study.trials() if trial.state is not TrialState.FAIL]
        there = {(trial.user_attrs["arm"], trial.user_attrs["seed"]) for trial in arm_trials(trials)}
        all_seeds = sorted({seed for _, seed in there} | set(seeds))
        created = optuna.Study(study.name, study.storage)
        added = 0
        for seed in all_seeds:  # seed by seed, so that an early end leaves arms that can be compared
            for number, arm in enumerate(joined):
                if (number, seed) in there:
                    continue
                attributes = {
                    "arm": number,
                    "arm_name": arm.name,
                    "seed": seed,
                    "hyperparameters": dict(arm.hyperparameters),
                }
                created.enqueue_trial(
                    in_ranges(study.config.hyperparameters, arm.hyperparameters), user_attrs=attributes
                )
                added += 1
        study.storage.set_study_user_attr(study.study_id, "n_trials", len(trials) + added)
        return added


def arm_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that belong to an arm: other tools can add trials to any study."""
    return [trial for trial in trials if {"arm", "seed"} <= trial.user_attrs.keys()]
