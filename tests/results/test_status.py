"""What is running, how far, and where."""

import json
from dataclasses import asdict, replace

import optuna
from rich.console import Console

from igkd_hpo.config.study import Study
from igkd_hpo.results.status import StudyStatus, status, status_table
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open


def test_an_empty_database_has_no_studies(storage: SharedStorage) -> None:
    assert status(storage) == []


def test_a_study_is_described(storage: SharedStorage, study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.7)
    run(0.5, 0.6, 0.8)
    run(0.3, end="prune")
    run(end="fail")
    run(0.4, 0.45, end="leave")
    run(end="leave")
    (only,) = status(storage)
    assert (only.name, only.n_trials, only.best_accuracy, only.best_trial) == ("digits", 6, 0.8, 1)
    assert (only.finished, only.stopped, only.last_failure) == (False, None, "ValueError: no")
    assert vars(only.counts) == {"complete": 2, "pruned": 1, "infeasible": 0, "fail": 1, "running": 2, "waiting": 0}
    first, second = only.running
    assert (first.trial, first.attempt, first.epoch, first.epochs, first.validation_accuracy) == (4, 1, 2, 3, 0.45)
    assert (first.worker, first.host, first.device, first.lost) == ("worker-0", this_process().host, "cpu", False)
    assert (second.trial, second.epoch, second.validation_accuracy) == (5, 0, None)
    plain = json.loads(json.dumps(asdict(only)))
    assert plain["running"][0]["validation_accuracy"] == 0.45
    assert plain["counts"]["complete"] == 2


def test_the_end_and_a_stop_are_told_apart(storage: SharedStorage, study: SearchStudy, run) -> None:
    for _ in range(6):
        run(0.5, 0.6, 0.7)
    assert [s.finished for s in status(storage)] == [True]
    study.stop("stopped by hand")
    assert [s.stopped for s in status(storage)] == ["stopped by hand"]


def test_studies_come_in_the_order_of_their_launches(
    storage: SharedStorage, study: SearchStudy, study_file: Study
) -> None:
    create_or_open(storage, study_file.model_copy(update={"name": "other"}), n_trials=3, pins=None)
    optuna.create_study(storage=storage, study_name="made by something else")
    assert [(s.name, s.n_trials) for s in status(storage)] == [("digits", 6), ("other", 3)]
    create_or_open(storage, study_file, n_trials=None, pins=None)
    assert [s.name for s in status(storage)] == ["other", "digits"]


def shown(studies: list[StudyStatus]) -> list[str]:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(status_table(studies))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_people_see_per_cent_and_where_trials_run(storage: SharedStorage, study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.7)
    run(0.5, 0.6, 0.8125)
    run(end="fail")
    run(0.4, 0.455, end="leave")
    (only,) = status(storage)
    host = this_process().host
    assert shown([only]) == [
        "study state trials best",
        "digits running 2 of 6 (2 complete, 0 pruned, 1 failed) 81.2 % (trial 1)",
        "study trial epoch accuracy worker",
        f"digits 3 2 of 3 45.5 % worker-0 on {host} (cpu)",
        "digits: the last failed trial: ValueError: no",
    ]
    second_attempt = replace(only.running[0], attempt=2, control="kd", lost=True)
    lines = shown([replace(only, running=(second_attempt,), stopped="by [/hand]")])
    assert lines[1].startswith("digits stopped")
    assert lines[3] == f"digits 3 (kd), attempt 2 2 of 3 45.5 % worker-0 on {host} (cpu), gone"
    assert "digits: stopped: by [/hand]" in lines
    assert shown([replace(only, running=(second_attempt,))])[1].startswith("digits not running")
    assert shown([replace(only, running=())])[1].startswith("digits not running")
    assert shown([replace(only, finished=True, running=())])[1].startswith("digits finished")
