"""Create and extend a linked study, a confirmation or a ladder: another's data and training, given arms and seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from optuna.trial import FrozenTrial

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.controls import in_ranges
from igkd_hpo.config.pruner import NoPruner
from igkd_hpo.config.space import LARGEST_SEED, Value
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.distillation.recipe import SETTING_OF, needs
from igkd_hpo.errors import UsageError
from igkd_hpo.search.counts import needs_another
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import CALLED, Purpose, SearchStudy, create_or_open, find_study
from igkd_hpo.search.study_folder import name_by_folder

SEED_DISTANCE = 1_000_000
"""Fresh seeds begin so far from the search's, whose trial n has training.seed + n."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A configuration that is trained with every seed.

    Args:
        names: for people; more than one where several arms turned out to be the same.
        kinds: its purposes, in the same order: candidate, without_ig, without_kd, without_both or control; on a ladder
            distilled or plain.
        trial: number of the trial in the confirmed study whose configuration it is; None where there is none.
        search_accuracy: validation accuracy of that trial, a fraction.
        hyperparameters: all of them, as it trains.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    trial: int | None = None
    search_accuracy: float | None = None
    hyperparameters: Mapping[str, Value]

    @property
    def name(self) -> str:
        """Return the first of its names."""
        return self.names[0]

    @property
    def training_key(self) -> str:
        """Return the hyperparameters that make a difference in training, as text; arms with equal ones are merged."""
        values = dict(self.hyperparameters)
        if values["overlay_strength"] == 0:
            values["overlay_probability"] = 0.0
        unused = [key for key in values if needs(key) and all(values[weight] == 0 for weight in needs(key))]
        unused += [key for key, objectives in SETTING_OF.items() if values["objective"] not in objectives]
        ignored = {*unused} - {"overlay_probability"}
        # 0 and 0.0 are the same setting
        numbers = {k: v if isinstance(v, str) else float(v) for k, v in values.items() if k not in ignored}
        return json.dumps(numbers, sort_keys=True)


def merge_arms(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """Merge arms that train alike, in the order of their first appearance."""
    by_key: dict[str, Arm] = {}
    for arm in arms:
        first = by_key.setdefault(arm.training_key, arm)
        roles = dict(zip(arm.names, arm.kinds, strict=True)) | dict(zip(first.names, first.kinds, strict=True))
        names = (*first.names, *(name for name in arm.names if name not in first.names))
        by_key[arm.training_key] = replace(first, names=names, kinds=tuple(roles[name] for name in names))
    return tuple(by_key.values())


def linked_name(name: str, purpose: Purpose) -> str:
    """Return the name of the study that is linked to the study of this name, which it had when it was created."""
    suffix = f"-{purpose}"
    return f"{name[: 100 - len(suffix)]}{suffix}"  # a study's name has at most 100 characters


def open_confirmation(storage: SharedStorage, name: str) -> SearchStudy | None:
    """Open the study that confirms the study of this name, None where there is none yet."""
    return open_linked(storage, name, "confirm")


def open_linked(storage: SharedStorage, name: str, purpose: Purpose) -> SearchStudy | None:
    """Open the study that is linked to the study of this name for a purpose, None where there is none yet."""
    for key in dict.fromkeys((_key(storage, name), name)):
        study = find_study(storage, linked_name(key, purpose))
        if study is not None and study.confirms == name and study.purpose == purpose:
            return study
    return None


def _key(storage: SharedStorage, name: str) -> str:
    """Return what a linked study knows the study of this name by: its folder, which stays when it is renamed."""
    study = find_study(storage, name)
    return study.folder if study is not None and name_by_folder(storage, study.folder) == name else name


def begun_in_words(linked: SearchStudy) -> str:
    """Say in words how far a confirmation or a ladder is."""
    done = f"{linked.counts().finished} of {linked.read().n_trials} trainings of {linked.name} are done"
    return f"A {CALLED[linked.purpose]} has begun: {done}."


def recorded_state(linked: SearchStudy) -> str:
    """Return what a linked study has recorded so far, as a key to cache what is computed of it."""
    return f"{linked.counts().finished} {json.dumps(dict(linked.read().attributes), sort_keys=True)}"


def parent_of(study: SearchStudy) -> SearchStudy:
    """Open the study that a linked one belongs to; return the study itself where it belongs to none, or a lost one."""
    parent = None if study.confirms is None else find_study(study.storage, study.confirms)
    return study if parent is None else parent


def create_linked(storage: SharedStorage, parent: Study, purpose: Purpose, *, pins: AssetPins) -> SearchStudy:
    """Create the study that is linked to `parent` for a purpose, or open it to go on.

    Raises UsageError where another study has its name, and all that `create_or_open` raises where `parent` changed.
    """
    existing, key = open_linked(storage, parent.name, purpose), _key(storage, parent.name)
    config = parent.model_copy(
        update={
            "name": linked_name(key, purpose) if existing is None else existing.name,
            "pruner": NoPruner(name="none"),
            "controls": (),
            "known_good": (),
            "n_trials": 1,  # the true number follows the arms
            "timeout": None,  # of the search
            "strata": None,
            "limits": Limits(),  # what is confirmed was within them; timed once more, one of its seeds might not be
            "provenance": None,
        }
    )
    study = create_or_open(storage, config, n_trials=None, pins=pins, confirms=key, purpose=purpose)
    if study.confirms != parent.name or study.purpose != purpose:
        raise UsageError(
            f"study {study.name!r} is not the {CALLED[purpose]} of {parent.name!r}; `igkd-hpo rename` one of them"
        )
    return study


def fresh_seeds(parent: Study, count: int) -> tuple[int, ...]:
    """Return the first `count` seeds of a linked study; no trial of the search has them."""
    seed = parent.training.seed
    first = seed + (SEED_DISTANCE if seed <= LARGEST_SEED // 2 else -SEED_DISTANCE)
    return tuple(range(first, first + count))


def arms_of(study: SearchStudy) -> tuple[Arm, ...]:
    """Return the arms of a linked study, in the order in which they were added."""
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


def extend(study: SearchStudy, arms: Sequence[Arm], seeds: Sequence[int], frontier: Sequence[Arm] = ()) -> int:
    """Enqueue a trial for each arm and seed without one that may still succeed, and return the number of new trials.

    Arms and seeds from before stay: every arm gets every seed. All of it happens or nothing does. The first of `arms`
    is the one that others are parts of.

    Args:
        frontier: those of `arms` that are compared with the next larger one, the smallest first; none leaves those of
            before.
    """
    with study.transaction():
        joined = merge_arms([*arms_of(study), *arms])
        study.storage.set_study_user_attr(study.study_id, "arms", [asdict(arm) for arm in joined])
        first = [arm.training_key for arm in joined].index(arms[0].training_key)
        study.storage.set_study_user_attr(study.study_id, "subject", first)
        if frontier:
            places = {arm.training_key: place for place, arm in enumerate(joined)}
            steps = [places[arm.training_key] for arm in frontier]
            study.storage.set_study_user_attr(study.study_id, "frontier", list(dict.fromkeys(steps)))
        trials = [trial for trial in study.trials() if not needs_another(trial)]
        present = {(trial.user_attrs["arm"], trial.user_attrs["seed"]) for trial in arm_trials(trials)}
        all_seeds = sorted({seed for _, seed in present} | set(seeds))
        # Seed by seed, so that an early end leaves arms that can be compared.
        pairs = [(arm, seed) for seed in all_seeds for arm in range(len(joined)) if (arm, seed) not in present]
        for number, seed in pairs:
            arm, values = joined[number], dict(joined[number].hyperparameters)
            attributes = {"arm": number, "arm_name": arm.name, "seed": seed, "hyperparameters": values}
            params = in_ranges(study.config.hyperparameters, values)
            study.optuna_study.enqueue_trial(params, user_attrs=attributes)
        study.storage.set_study_user_attr(study.study_id, "n_trials", len(trials) + len(pairs))
        return len(pairs)


def arm_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that belong to an arm: other tools can add trials to any study."""
    return [trial for trial in trials if {"arm", "seed", "hyperparameters"} <= trial.user_attrs.keys()]
