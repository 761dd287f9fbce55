"""Which trial is the best, and how it is talked about."""

import json

import pytest

from igkd_hpo.errors import ExitCode, NoCompletedTrial
from igkd_hpo.search.best import best_trial, summary
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Leases, Worker
from igkd_hpo.search.study import SearchStudy


def test_the_best_completed_trial_is_set_against_the_controls(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)  # student
    run(0.5, 0.6, 0.75)  # kd
    run(0.9, 0.99, end="prune")  # higher than all, and yet not complete
    claim = run(0.5, 0.7, 0.80)
    run(0.5, 0.6, 0.72)
    best = best_trial(study)
    assert (best.number, best.validation_accuracy, best.epochs, best.control) == (3, 0.80, 3, None)
    assert best.hyperparameters == claim.hyperparameters
    assert (best.seed, best.attempts, best.completed) == (43, 1, 4)
    assert best.execution is not None
    assert best.execution.memory_format == "channels_last"
    assert [(c.control, c.trial, c.validation_accuracy, round(c.difference, 9)) for c in best.compared] == [
        ("student", 0, 0.70, 0.10),
        ("kd", 1, 0.75, 0.05),
    ]


def test_while_trials_run_the_first_is_waited_for(study: SearchStudy, run) -> None:
    run(0.5, end="prune")
    with pytest.raises(NoCompletedTrial, match="`igkd-hpo launch digits`"):
        best_trial(study)
    Leases(study).claim(Worker(name="worker-0", process=this_process()))
    with pytest.raises(NoCompletedTrial, match=r"1 running.*wait") as waiting:
        best_trial(study)
    assert "launch" not in str(waiting.value)


def test_a_control_can_be_the_best_and_is_not_compared_with_itself(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)
    run(0.5, 0.6, 0.90)
    run(0.5, 0.6, 0.80)
    best = best_trial(study)
    assert (best.number, best.control) == (1, "kd")
    assert (best.hyperparameters["alpha"], best.hyperparameters["temperature"]) == (0.9, 4)
    assert [c.control for c in best.compared] == ["student"]
    assert "the control kd, trial 1" in summary(study)


def test_of_equals_the_first_is_the_best(study: SearchStudy, run) -> None:
    for _ in range(3):
        run(0.5, 0.6, 0.7)
    assert best_trial(study).number == 0


def test_without_a_completed_trial_the_counts_are_named(study: SearchStudy, run) -> None:
    with pytest.raises(NoCompletedTrial, match=r"digits .*\(2 waiting\)") as caught:
        best_trial(study)
    assert caught.value.exit_code == ExitCode.NO_COMPLETED_TRIAL
    run(0.5, end="prune")
    run(end="fail")
    with pytest.raises(NoCompletedTrial, match="1 pruned, 1 failed"):
        summary(study)


def test_as_json_is_plain(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)
    run(0.5, 0.6, 0.75)
    plain = json.loads(json.dumps(best_trial(study).as_json()))
    assert plain["validation_accuracy"] == 0.75
    assert plain["execution"]["threads"] == 1
    assert plain["compared"][0]["control"] == "student"


def test_the_summary_says_how_far_to_trust_it(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)
    assert "one trial with one seed" in summary(study)
    run(0.5, 0.6, 0.75)
    run(0.5, 0.6, 0.812)
    text = summary(study)
    assert "digits: 3 of 6 trials finished (3 complete)" in text
    assert "best: trial 2, 81.20 % validation accuracy after 3 epochs" in text
    size = "140,234 parameters, 4.1 times smaller than the teacher, 9,000,000 multiply-adds"
    assert f"{size}, 2.500 ms for an image on one CPU thread, seed 42" in text
    assert "\n  temperature " in text
    assert "dkd_beta" not in text, "a default that nobody chose is no news"
    assert "  student  70.00 %  +11.20 points" in text
    assert "  kd       75.00 %  +6.20 points" in text
    assert "The highest of 3 completed trials with one seed each is partly luck" in text
    assert "igkd-hpo confirm digits" in text
