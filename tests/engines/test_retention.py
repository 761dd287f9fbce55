"""Which checkpoints stay: what the best few, and the best within any limits, are made of."""

import random
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.config.study import Study
from igkd_hpo.engines.retention import BEST, needed, remove_checkpoints
from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.search.best import accuracy, best_trial
from igkd_hpo.search.confirmation_study import create_linked
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Paths
from tests.fixtures.studies import *  # noqa: F403
from tests.search.conftest import PINS


def completed(values: Sequence[tuple[float, dict[str, float]]]) -> list[FrozenTrial]:
    """COMPLETE trials with these accuracies and costs."""
    study = optuna.create_study(direction="maximize")
    for value, costs in values:
        attributes = {"hyperparameters": {}, "seed": 0} | costs
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attributes))
    return study.trials


def add(study: SearchStudy, accuracies: Sequence[float]) -> None:
    attributes = {"hyperparameters": study.config.hyperparameters.middle(), "seed": 0, "parameters": 1000}
    for value in accuracies:
        study.optuna_study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attributes))


def test_the_best_within_any_limits_stays(storage: SharedStorage, study_file: Study) -> None:
    study, draw = create_or_open(storage, study_file, n_trials=None, pins=PINS), random.Random(3)
    trials = completed(
        [
            (
                round(draw.random(), 1),  # many are equal
                {name: draw.randint(1, 6) for name in COSTS if draw.random() < 0.9},  # some are not known
            )
            for _ in range(60)
        ]
    )
    kept = needed(trials)
    for _ in range(300):
        under = {name: draw.randint(1, 6) for name in draw.sample(sorted(COSTS), draw.randint(0, 3))}
        try:
            best = best_trial(study, trials, under=under)
        except NoCompletedTrial:
            continue
        assert best.number in kept, under
    assert kept >= {trial.number for trial in sorted(trials, key=lambda t: (-accuracy(t), t.number))[:BEST]}
    assert len(kept) < 60


def test_students_of_one_size_leave_the_best_few(storage: SharedStorage, study_file: Study, paths: Paths) -> None:
    study = create_or_open(storage, study_file, n_trials=None, pins=PINS)
    accuracies = [0.5, 0.9, 0.1, 0.8, 0.7, 0.6, 0.4, 0.3]
    first = len(study.trials())
    add(study, accuracies)
    numbers = range(first + len(accuracies))  # those before wait, or were pruned
    files = [paths.checkpoint(study.folder, number, 1) for number in numbers]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    remove_checkpoints(study, paths)
    stay = {first + accuracies.index(value) for value in (0.9, 0.8, 0.7, 0.6, 0.5)} | set(range(first))
    assert {number for number, path in zip(numbers, files, strict=True) if path.exists()} == stay


def test_a_confirmation_keeps_all(storage: SharedStorage, study_file: Study, paths: Paths) -> None:
    study = create_or_open(storage, study_file, n_trials=None, pins=PINS)
    linked = create_linked(storage, study.config, "confirm", pins=PINS)
    add(linked, [0.1 * number for number in range(1, 9)])
    files: list[Path] = [paths.checkpoint(linked.folder, number, 1) for number in range(8)]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    remove_checkpoints(linked, paths)
    assert all(path.exists() for path in files)
