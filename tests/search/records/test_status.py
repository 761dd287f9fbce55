"""What is running, how far, and where."""

import json
from dataclasses import asdict

import optuna
import pytest

from igkd_hpo.config.study import Study
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.status import PrunedTrial, state_in_words, status, study_status
from igkd_hpo.search.storage import SharedStorage, open_storage
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
    assert (first.validation_accuracies, second.validation_accuracies) == ((0.4, 0.45), ())
    assert [(c.control, c.trial, c.validation_accuracy) for c in only.controls] == [("student", 0, 0.7), ("kd", 1, 0.8)]
    assert (only.best_control, only.epochs) == ("kd", 3)
    assert only.last_pruned == PrunedTrial(trial=2, reason="below the bar")
    plain = json.loads(json.dumps(asdict(only)))
    assert plain["running"][0]["validation_accuracy"] == 0.45
    assert plain["counts"]["complete"] == 2


def test_the_end_and_a_stop_are_told_apart(storage: SharedStorage, study: SearchStudy, run) -> None:
    for _ in range(6):
        run(0.5, 0.6, 0.7)
    assert [s.finished for s in status(storage)] == [True]
    study.stop("stopped by hand")
    assert [s.stopped for s in status(storage)] == ["stopped by hand"]


def test_only_what_is_named_is_shown_with_its_confirmation(storage: SharedStorage, study: SearchStudy) -> None:
    other = study.config.model_copy(update={"name": "other"})
    create_or_open(storage, other, n_trials=None, pins=None)
    confirming = study.config.model_copy(update={"name": "digits-confirm"})
    create_or_open(storage, confirming, n_trials=None, pins=None, confirms=study.folder)
    assert [s.name for s in status(storage, ["digits"])] == ["digits", "digits-confirm"]
    assert [s.name for s in status(storage, ["other"])] == ["other"]


def test_a_stop_takes_until_what_runs_has_ended(storage: SharedStorage, study: SearchStudy, worker: Worker) -> None:
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    study.stop("by hand")
    assert study.read().stop_ordered
    assert [state_in_words(s) for s in status(storage)] == ["stopping"]
    leases.release(claim, "stopped", counted=False, epochs_gained=False)
    assert [state_in_words(s) for s in status(storage)] == ["stopped"]
    assert not create_or_open(storage, study.config, n_trials=None, pins=None).read().stop_ordered


def test_studies_come_in_the_order_of_their_launches(
    storage: SharedStorage, study: SearchStudy, study_file: Study
) -> None:
    create_or_open(storage, study_file.model_copy(update={"name": "other"}), n_trials=3, pins=None)
    optuna.create_study(storage=storage, study_name="made by something else")
    assert [(s.name, s.n_trials) for s in status(storage)] == [("digits", 6), ("other", 3)]
    create_or_open(storage, study_file, n_trials=None, pins=None)
    assert [s.name for s in status(storage)] == ["other", "digits"]


def test_the_time_left_follows_from_the_trials_that_ended(storage: SharedStorage, study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.7)
    (only,) = status(storage)
    assert only.seconds_left is None, "nothing runs"
    run(0.5, 0.6, end="prune")
    run(0.4, 0.5, end="leave")
    run(end="leave")
    ended = [trial for trial in study.trials() if trial.state.is_finished()]
    seconds = [(t.datetime_complete - t.datetime_start).total_seconds() for t in ended]
    (only,) = status(storage)
    # 4 of 6 are to go, 2/3 of one is done; two run side by side
    assert only.seconds_left == pytest.approx((4 - 2 / 3) * sum(seconds) / 2 / 2)


def test_a_status_is_of_one_moment(storage: SharedStorage, study: SearchStudy, run, monkeypatch) -> None:
    run(0.5, 0.6, 0.7)
    other = open_storage(storage.url.render_as_string(hide_password=False), create=False)
    theirs, leases = SearchStudy(other, "digits"), Leases(SearchStudy(other, "digits"))

    def change() -> None:
        claim = leases.claim(Worker(name="theirs", process=this_process()))
        assert isinstance(claim, Claim)
        assert leases.complete(claim, 0.9, {})
        create_or_open(other, theirs.config, n_trials=theirs.read().n_trials + 1, pins=None)

    def changing(read):
        def changed_meanwhile(self: SharedStorage, *args, **kwargs):
            found = read(self, *args, **kwargs)
            if self is storage:
                change()
            return found

        return changed_meanwhile

    for name in ("get_study_user_attrs", "get_all_trials"):
        monkeypatch.setattr(SharedStorage, name, changing(getattr(SharedStorage, name)))
    before, after = study_status(study), study_status(study)
    other.engine.dispose()
    assert (before.n_trials, before.counts.complete) == (6, 1)
    assert (after.n_trials, after.counts.complete) == (8, 3)
