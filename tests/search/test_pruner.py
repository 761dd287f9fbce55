"""When a trial is pruned, and what is said about it."""

import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import TypeAdapter

from igkd_hpo.config.pruner import Pruner
from igkd_hpo.config.study import Study
from igkd_hpo.search.pruner import make_pruner, why_pruned

EPOCHS = 9


def pruner_of(**settings: object) -> tuple[Pruner, BasePruner]:
    config: Pruner = TypeAdapter(Pruner).validate_python(settings)
    return config, make_pruner(config, EPOCHS)


def study_of(final_accuracies: list[float]) -> optuna.Study:
    """COMPLETE trials whose accuracy grows evenly to its last."""
    study = optuna.create_study(direction="maximize")
    for final in final_accuracies:
        curve = {epoch: final * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)}
        study.add_trial(create_trial(value=final, intermediate_values=curve))
    return study


def pruned_at(pruner: BasePruner, study: optuna.Study, accuracies: list[float]) -> int | None:
    """The epoch that the pruner ends a trial with these accuracies at."""
    trial = study.ask()
    for epoch, accuracy in enumerate(accuracies, start=1):
        trial.report(accuracy, epoch)
        frozen = study._storage.get_trial(trial._trial_id)
        if pruner.prune(study, frozen):
            return epoch
    return None


def running(accuracies: list[float]) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(accuracies, start=1)))


@pytest.mark.parametrize("name", ["percentile", "median"])
@pytest.mark.parametrize("grace_period", [0, 1, 3])
def test_nothing_is_pruned_in_the_grace_period(name: str, grace_period: int) -> None:
    _, pruner = pruner_of(name=name, grace_period=grace_period)
    assert pruned_at(pruner, study_of([0.9] * 5), [0.0] * EPOCHS) == grace_period + 1


def test_five_trials_must_complete_before_a_percentile_means_anything() -> None:
    _, pruner = pruner_of(name="percentile", grace_period=0)
    assert pruned_at(pruner, study_of([0.9] * 4), [0.0] * EPOCHS) is None


def test_keep_is_the_share_that_goes_on() -> None:
    study = study_of([0.1, 0.2, 0.3, 0.4, 0.5])
    _, strict = pruner_of(name="percentile", keep=25, grace_period=8)
    _, lenient = pruner_of(name="percentile", keep=75, grace_period=8)
    assert pruned_at(strict, study, [0.35] * EPOCHS) == 9  # the bar is 0.4
    assert pruned_at(lenient, study, [0.35] * EPOCHS) is None  # the bar is 0.2
    assert pruned_at(lenient, study, [0.15] * EPOCHS) == 9


def test_patience_spares_a_trial_that_still_improves() -> None:
    _, pruner = pruner_of(name="percentile", grace_period=0, patience=2)
    study = study_of([0.9] * 5)
    assert pruned_at(pruner, study, [0.01 * epoch for epoch in range(1, EPOCHS + 1)]) is None
    assert pruned_at(pruner, study, [0.05, 0.04, 0.04, 0.04, 0.04]) == 4


def test_successive_halving_judges_at_its_rungs() -> None:
    _, pruner = pruner_of(name="successive_halving", grace_period=2, reduction_factor=3)
    study = study_of([])
    assert pruned_at(pruner, study, [0.5] * EPOCHS) is None
    assert pruned_at(pruner, study, [0.1] * EPOCHS) == 2


@pytest.mark.parametrize(("epochs", "first"), [(5, 1), (12, 1), (50, 4), (100, 8)])
def test_by_default_successive_halving_begins_after_a_twelfth_of_the_epochs(epochs: int, first: int) -> None:
    default = Study.model_fields["pruner"].default
    pruner, study = make_pruner(default, epochs), study_of([])
    assert pruned_at(pruner, study, [0.5] * epochs) is None
    assert pruned_at(pruner, study, [0.1] * epochs) == first


@pytest.mark.parametrize("grace_period", [1, 3, 20])
def test_hyperband_is_the_same_in_every_process(grace_period: int) -> None:
    study = study_of([])
    for _ in range(8):
        curve = [0.1] * EPOCHS
        _, one = pruner_of(name="hyperband", grace_period=grace_period, reduction_factor=3)
        _, other = pruner_of(name="hyperband", grace_period=grace_period, reduction_factor=3)
        trial = study.ask()
        trial.report(curve[0], 1)
        frozen = study._storage.get_trial(trial._trial_id)
        assert one.prune(study, frozen) == other.prune(study, frozen)


def test_reasons() -> None:
    trials = study_of([0.1, 0.2, 0.3, 0.4, 0.5]).trials
    config, _ = pruner_of(name="percentile", keep=25, grace_period=0)
    assert why_pruned(config, running([0.05] * 8 + [0.01]), trials) == (
        "5.00 % by epoch 9, below the bar of 40.00 % (the best 25 % of 5 completed trials)"
    )
    config, _ = pruner_of(name="hyperband")
    assert why_pruned(config, running([0.05, 0.25]), trials) == ("25.00 % at epoch 2, not among the best 1 in 3 there")
