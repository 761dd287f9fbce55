"""A study ends with its time, whoever works on it and however often it is launched, and loses nothing; on both
databases, whose clock is turned by moving the deadline."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from optuna.trial import TrialState

from igkd_hpo.config.study import Study
from igkd_hpo.search.confirmation_study import create_linked
from igkd_hpo.search.identity import ProcessIdentity
from igkd_hpo.search.lease import Claim, Idle, Leases, Verdict, Worker
from igkd_hpo.search.status import study_status
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open
from tests.search.conftest import PINS


def pass_minutes(study: SearchStudy, minutes: float) -> None:
    deadline = study.read().attributes["deadline"]
    study.storage.set_study_user_attr(study.study_id, "deadline", deadline - 60 * minutes)


def seconds_left(study: SearchStudy) -> float:
    deadline = study.read().deadline
    assert deadline is not None
    return (deadline - datetime.now(UTC)).total_seconds()


def launched(storage: SharedStorage, file: Study, timeout: int | None = None, **changes: object) -> SearchStudy:
    changed = Study.model_validate(file.model_dump() | changes)
    return create_or_open(storage, changed, n_trials=None, pins=None, timeout=timeout)


def claimed(leases: Leases, worker: Worker) -> Claim:
    claim = leases.claim(worker)
    assert isinstance(claim, Claim), claim
    return claim


def test_ten_minutes_over_two_launches_and_a_kill(
    storage: SharedStorage, study_file: Study, worker: Worker, elsewhere: Callable[[str], Worker]
) -> None:
    file = Study.model_validate(study_file.model_dump() | {"timeout": "10m"})
    study = launched(storage, file)
    assert seconds_left(study) == pytest.approx(600, abs=30)
    leases = Leases(study)
    here = worker.process
    killed = ProcessIdentity(host=here.host, boot_id=here.boot_id, pid=here.pid, start_time=here.start_time + 1)
    lost = claimed(leases, Worker(name="killed", process=killed))
    assert leases.report(lost, epoch=1, accuracy=0.25) is Verdict.GO_ON
    pass_minutes(study, 6)
    again = create_or_open(storage, study.config, n_trials=None, pins=None)
    assert seconds_left(again) == pytest.approx(240, abs=30)
    taken = claimed(Leases(again), worker)
    assert (taken.number, taken.attempt, taken.reported_epochs) == (lost.number, 2, {1})
    other = claimed(Leases(again), elsewhere("far"))
    assert leases.heartbeat(taken, last_epoch=2) is Verdict.GO_ON
    assert study_status(again).stopped is None

    pass_minutes(study, 4)
    assert leases.heartbeat(taken, last_epoch=2) is Verdict.STOP
    assert leases.heartbeat(other, last_epoch=0) is Verdict.STOP
    assert leases.claim(worker) is Idle.STOPPED
    for claim in (taken, other):
        assert leases.release(claim, "the study was stopped", counted=False, epochs_gained=False)
    assert [trial.state for trial in study.trials()] == [TrialState.WAITING] * 2
    assert {trial.user_attrs["attempts_without_progress"] for trial in study.trials()} == {0}
    status = study_status(study)
    assert "its time was over at" in str(status.stopped)
    assert (status.stop_planned, status.finished) == (True, False)
    assert study.read().stop_ordered is False

    assert Leases(create_or_open(storage, study.config, n_trials=None, pins=None)).claim(worker) is Idle.STOPPED
    longer = create_or_open(storage, study.config, n_trials=None, pins=None, timeout=7200)
    assert (longer.read().stopped, longer.read().stop_planned) == (None, False)
    assert seconds_left(longer) == pytest.approx(7200, abs=30)
    resumed = claimed(Leases(longer), worker)
    assert (resumed.number, resumed.attempt, resumed.reported_epochs) == (lost.number, 3, {1})


def test_the_time_follows_the_flag_then_a_changed_file(storage: SharedStorage, study_file: Study) -> None:
    assert launched(storage, study_file).read().deadline is None
    assert seconds_left(launched(storage, study_file, 60)) == pytest.approx(60, abs=30)
    assert seconds_left(launched(storage, study_file)) == pytest.approx(60, abs=30)
    in_file = Study.model_validate(study_file.model_dump() | {"timeout": "1h"})
    assert seconds_left(launched(storage, in_file)) == pytest.approx(3600, abs=30)
    assert seconds_left(launched(storage, in_file, 600)) == pytest.approx(600, abs=30)
    assert seconds_left(launched(storage, in_file)) == pytest.approx(600, abs=30)
    assert launched(storage, study_file).read().deadline is None


def test_what_somebody_ordered_stays_the_reason(storage: SharedStorage, study_file: Study, worker: Worker) -> None:
    study = launched(storage, study_file, 600)
    leases = Leases(study)
    claim = claimed(leases, worker)
    study.stop("enough")
    assert leases.heartbeat(claim, last_epoch=0) is Verdict.GO_ON
    pass_minutes(study, 11)
    assert leases.heartbeat(claim, last_epoch=0) is Verdict.STOP
    record = study.read()
    assert (record.stopped, record.stop_ordered, record.stop_planned) == ("enough", True, False)


def test_a_confirmation_has_time(storage: SharedStorage, study_file: Study) -> None:
    study = launched(storage, Study.model_validate(study_file.model_dump() | {"timeout": "1h"}))
    assert create_linked(storage, study.config, "confirm", pins=PINS).read().deadline is None


def test_a_finished_study_is_not_stopped_by_its_time(storage: SharedStorage, study_file: Study, worker: Worker) -> None:
    study = launched(storage, study_file, 600, n_trials=1)
    leases = Leases(study)
    assert leases.complete(claimed(leases, worker), 0.5, {})
    pass_minutes(study, 11)
    assert leases.claim(worker) is Idle.FINISHED
    assert study.read().stopped is None
