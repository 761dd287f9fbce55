"""The summary above a study's note: what it says at each stage of a study."""

import re

import pytest
from optuna.trial import TrialState

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.confirmation.confirmation import confirmation_of
from igkd_hpo.confirmation.plan import best_candidates, planned_arms
from igkd_hpo.confirmation.sentences import headline
from igkd_hpo.dashboard.summary import live_summary
from igkd_hpo.search.confirmation_study import create_linked, extend, fresh_seeds
from igkd_hpo.search.study import SearchStudy
from tests.fixtures.studies import Run


def told(study: SearchStudy) -> str:
    return live_summary(study, study.trials())


def test_before_the_first_result(study: SearchStudy) -> None:
    assert told(study).startswith("## No trial has completed yet\n\n**0 of 6 trials finished:** 2 waiting.")
    assert "igkd-hpo launch digits" in told(study)
    assert "confirm" not in told(study)


def test_the_best_stands_against_the_controls(study: SearchStudy, run: Run) -> None:
    run(0.5, 0.7, 0.9)
    run(0.5, 0.7, 0.8)
    run(0.6, 0.8, 0.95)
    run(0.3, end="prune")
    run(0.3, end="prune")
    text = told(study)
    assert "## Best so far: 95.00 % on validation (trial 2)" in text
    assert "| student | 0 | 90.00 % | +5.00 points |\n| kd | 1 | 80.00 % | +15.00 points |" in text
    assert re.search("3 completed trials .* partly luck", text)
    assert "**5 of 6 trials finished:** 3 complete, 2 pruned." in text
    assert re.search(r"Pruning ended 2 at epoch 1 \(median; 1 to 1\), .* 4 of 15 epochs ", text)
    assert re.search(r"The trials took \d+ s in all, \d+ s in the median; the first began on \d\d \w{3} 20", text)
    for command in ("launch digits ", "confirm digits ", "export digits -o best.yaml "):
        assert f"    igkd-hpo {command}" in text


def test_what_is_left_is_estimated_while_trials_run(study: SearchStudy, run: Run) -> None:
    run(0.5)
    assert "are left" not in told(study)
    run(0.5, end="leave")
    assert re.search(r"About \d+ s are left", told(study))


def test_a_stop_and_its_reason_are_told(study: SearchStudy) -> None:
    study.stop("the disk is full")
    assert "The study was stopped: the disk is full" in told(study)


def test_a_finished_study_is_not_launched_again(study: SearchStudy, run: Run) -> None:
    for _ in range(6):
        run(0.5)
    assert "igkd-hpo launch" not in told(study)
    assert "igkd-hpo report digits" in told(study)


@pytest.fixture
def confirmation(study: SearchStudy, run: Run) -> SearchStudy:
    """The best of the search and one control, two seeds each, still to be trained."""
    for _ in range(3):
        run(0.5)
    pins = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
    linked = create_linked(study.storage, study.config, "confirm", pins=pins)
    arms = planned_arms(study.config, best_candidates(study, 1), ("kd",))
    extend(linked, arms, fresh_seeds(study.config, 2))
    return linked


def test_a_confirmation_is_told_when_it_begins_and_when_it_is_tested(
    study: SearchStudy, confirmation: SearchStudy
) -> None:
    assert " 0 of 10 trainings of digits-confirm " in told(study)
    assert told(confirmation).startswith("**0 of 10 trainings finished:** 10 waiting.")
    accuracies = {trial.number: 0.9 + trial.number / 1000 for trial in confirmation.trials()}
    for trial in confirmation.trials():
        study.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        study.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [accuracies[trial.number]])
    assert "Confirmed" not in told(study)  # the test split is still closed
    record = {"accuracies": {str(n): value for n, value in accuracies.items()}, "images": 360, "opened": ["2026-11-21"]}
    study.storage.set_study_user_attr(confirmation.study_id, "test_split", record)
    said = "The search saw 50.00 % on validation"
    found = confirmation_of(study)
    assert found is not None
    assert told(study).startswith(f"## {headline(found)}\n")
    assert "Best so far" not in told(study)
    assert "igkd-hpo confirm digits" not in told(study)
    assert "igkd-hpo report digits" in told(study)
    assert "partly luck" not in told(study)
    assert said in told(study)
    assert said in told(confirmation)
