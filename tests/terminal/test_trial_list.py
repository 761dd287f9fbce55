"""What `trials` lists on a terminal."""

from dataclasses import fields

from igkd_hpo.search.records import TrialRecord
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.trial_list import trial_list

NOTHING = {field.name: None for field in fields(TrialRecord)} | {"accuracies": {}, "hyperparameters": {}, "cost": {}}


def rows(*trials: TrialRecord) -> list[list[str]]:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(trial_list(trials, ("learning_rate", "architecture"), "balanced_accuracy"))
    return [line.split() for line in captured.get().splitlines()]


def test_a_trial_has_what_was_searched_and_a_control_its_name():
    settings = {"learning_rate": 0.123456, "architecture": "timm/lcnet_050", "batch_size": 64}
    known = {"state": "COMPLETE", "accuracies": {1: 0.5, 2: 0.25}, "cost": {"parameters": 24_311}, "accuracy": 0.25}
    searched = TrialRecord(**NOTHING | known | {"number": 1, "hyperparameters": settings})
    control = TrialRecord(**NOTHING | known | {"number": 0, "control": "kd_ig", "hyperparameters": settings})
    heading, first, second = rows(control, searched)
    assert heading[:3] == ["trial", "balanced", "accuracy"]
    assert first == ["0", "25.00", "%", "2", "24,311", "complete", "the", "control", "kd_ig"]
    assert second[6:] == ["learning_rate", "0.123,", "architecture", "lcnet_050"]


def test_a_trial_that_never_began_tells_why():
    failed = TrialRecord(**NOTHING | {"number": 3, "state": "FAIL", "reason": "ValueError: no"})
    assert rows(failed)[1] == ["3", "0", "fail", "ValueError:", "no"]
