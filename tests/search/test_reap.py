"""What becomes of a trial whose worker died, fell silent or was stopped, on both databases."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from igkd_hpo.errors import StorageError
from igkd_hpo.search import lease as lease_module
from igkd_hpo.search.identity import identify, is_dead
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.study import SearchStudy

MakeStudy = Callable[..., SearchStudy]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Another process on this host, which waits for its standard input to end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def worker_of(process: subprocess.Popen[bytes]) -> Worker:
    identity = identify(process.pid)
    assert identity is not None
    return Worker(name="neighbour", process=identity)


def claimed(leases: Leases, worker: Worker) -> Claim:
    claim = leases.claim(worker)
    assert isinstance(claim, Claim), claim
    return claim


def test_a_look_at_the_living_reads_no_trial(
    make_study: MakeStudy, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(make_study())
    claimed(leases, worker)
    monkeypatch.setattr(SearchStudy, "trials", lambda _: pytest.fail("every supervisor looks every two seconds"))
    assert leases.reap() == []


def test_a_worker_that_died_on_this_host_is_reaped_at_once(
    make_study: MakeStudy, worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    study = make_study()
    leases = Leases(study)
    neighbour = worker_of(process)
    lost, kept = claimed(leases, neighbour), claimed(leases, worker)
    assert leases.reap() == []
    process.kill()
    process.wait()
    (reaped,) = leases.reap()
    assert str(reaped) == (
        f"worker neighbour on {worker.process.host} is gone; trial 0 (attempt 1) waits for another attempt"
    )
    assert [lease.trial_id for lease in leases.held()] == [kept.trial_id]
    again = claimed(leases, worker)
    assert (again.trial_id, again.attempt) == (lost.trial_id, 2)
    assert study.trials()[0].user_attrs["attempts_without_progress"] == 1


def test_a_zombie_worker_is_gone(make_study: MakeStudy, process: subprocess.Popen[bytes]) -> None:
    leases = Leases(make_study())
    neighbour = worker_of(process)
    claimed(leases, neighbour)
    process.kill()
    while is_dead(neighbour.process) is False:  # never waited for: it stays a zombie
        pass
    assert len(leases.reap()) == 1


def test_what_is_left_of_a_dead_worker_is_killed(make_study: MakeStudy, process: subprocess.Popen[bytes]) -> None:
    leases = Leases(make_study())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as trial:
        trial_process = identify(trial.pid)
        assert trial_process is not None
        claim = claimed(leases, worker_of(process))
        assert leases.start(claim, trial_process, "cpu")
        process.kill()
        process.wait()
        leases.reap()
        assert trial.wait(10) == -9


def test_what_another_user_left_is_told_and_blocks_nobody(
    make_study: MakeStudy, worker: Worker, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker_of(process))
    assert leases.start(claim, worker.process, "cpu")  # this process lives on
    process.kill()
    process.wait()
    monkeypatch.setattr("igkd_hpo.search.identity.signal.pidfd_send_signal", refuse)
    again = claimed(leases, worker)
    assert (again.trial_id, again.attempt) == (claim.trial_id, 2)
    assert "another user's" in study.trials()[0].user_attrs["reason"]


def test_a_trial_that_gained_epochs_may_be_tried_for_ever(
    make_study: MakeStudy, clock: Callable[[], float], elsewhere: Callable[[str], Worker]
) -> None:
    study = make_study(max_retries=0)
    leases = Leases(study, lease_seconds=60, clock=clock)
    first = claimed(leases, elsewhere("a"))
    assert leases.report(first, epoch=1, accuracy=0.5) is Verdict.GO_ON
    leases.reap()
    clock.wait(60, leases.reap)  # type: ignore[attr-defined]
    assert [reaped.state for reaped in leases.reap()] == [TrialState.WAITING]
    second = claimed(leases, elsewhere("b"))
    assert second.attempt == 2
    leases.reap()
    clock.wait(60, leases.reap)  # type: ignore[attr-defined]
    assert [reaped.state for reaped in leases.reap()] == [TrialState.FAIL]
    assert "gave no sign of life for 60 s" in study.trials()[0].user_attrs["reason"]


def test_elsewhere_only_an_unchanged_beat_counts(
    make_study: MakeStudy, clock: Callable[[], float], elsewhere: Callable[[str], Worker]
) -> None:
    study = make_study()
    holder = Leases(study)
    watcher = Leases(study, lease_seconds=60, clock=clock)
    claim = claimed(holder, elsewhere("a"))
    assert watcher.reap() == []
    for _ in range(3):
        clock.wait(59.9, watcher.reap)  # type: ignore[attr-defined]
        assert watcher.reap() == []
        assert holder.heartbeat(claim, last_epoch=0) is Verdict.GO_ON
        assert watcher.reap() == []
    clock.wait(60, watcher.reap)  # type: ignore[attr-defined]
    assert len(watcher.reap()) == 1
    assert holder.heartbeat(claim, last_epoch=0) is Verdict.LOST


def test_the_dead_are_reaped_while_the_living_train(
    make_study: MakeStudy, clock: Callable[[], float], worker: Worker, elsewhere: Callable[[str], Worker]
) -> None:
    study = make_study()
    leases = Leases(study, lease_seconds=60, clock=clock)
    lost, kept = claimed(Leases(study), elsewhere("a")), claimed(leases, worker)
    for _ in range(7):
        assert leases.heartbeat(kept, last_epoch=0) is Verdict.GO_ON
        clock.now += 10  # type: ignore[attr-defined]
    (reaped,) = leases.take_reaped()
    assert (reaped.number, reaped.worker, reaped.state) == (lost.number, "a", TrialState.WAITING)
    assert leases.take_reaped() == []
    assert [lease.trial_id for lease in leases.held()] == [kept.trial_id]


def test_an_outage_makes_nobody_stale(
    make_study: MakeStudy,
    clock: Callable[[], float],
    elsewhere: Callable[[str], Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = make_study()
    watcher = Leases(study, lease_seconds=60, clock=clock)
    claimed(Leases(study), elsewhere("a"))
    assert watcher.reap() == []
    clock.wait(59, watcher.reap)  # type: ignore[attr-defined]

    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, ConnectionError("the server is gone"))

    with monkeypatch.context() as patched:
        patched.setattr(lease_module, "read_leases", away)
        with pytest.raises(StorageError, match="the server is gone"):
            watcher.reap()
    clock.now += 29  # type: ignore[attr-defined]
    assert watcher.reap() == []
    clock.wait(59, watcher.reap)  # type: ignore[attr-defined]
    assert watcher.reap() == []
    clock.now += 1  # type: ignore[attr-defined]
    assert len(watcher.reap()) == 1


def test_a_trial_that_had_ended_only_loses_its_lease(make_study: MakeStudy, process: subprocess.Popen[bytes]) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker_of(process))
    study.optuna_study.tell(claim.number, 0.75)
    process.kill()
    process.wait()
    (reaped,) = leases.reap()
    assert reaped.state is TrialState.COMPLETE
    assert study.trials()[0].value == 0.75
    assert leases.held() == []


def test_the_last_reaping_ends_what_is_surplus(
    make_study: MakeStudy, worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    study = make_study(n_trials=2)
    leases = Leases(study)
    claimed(leases, worker_of(process))
    assert leases.complete(claimed(leases, worker), 0.5, {})
    study.storage.set_study_user_attr(study.study_id, "n_trials", 1)
    process.kill()
    process.wait()
    leases.reap()
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials()[0].user_attrs["reason"] == "surplus"


def test_stopping_a_worker_costs_its_trial_no_attempt(
    make_study: MakeStudy, worker: Worker, elsewhere: Callable[[str], Worker]
) -> None:
    study = make_study(max_retries=0)
    leases = Leases(study)
    dropped, kept = claimed(leases, elsewhere("a")), claimed(leases, worker)
    leases.drop_worker(elsewhere("a"))
    assert [lease.trial_id for lease in leases.held()] == [kept.trial_id]
    trial = study.trials()[dropped.number]
    assert trial.state is TrialState.WAITING
    assert (trial.user_attrs["reason"], trial.user_attrs["attempts_without_progress"]) == ("worker a was stopped", 0)


def test_a_worker_on_this_host_that_is_stopped_loses_its_trial_and_what_trains_is_killed(
    make_study: MakeStudy, clock: Callable[[], float], process: subprocess.Popen[bytes]
) -> None:
    study = make_study()
    holder, watcher = Leases(study), Leases(study, lease_seconds=60, clock=clock)
    claim = claimed(holder, worker_of(process))
    process.send_signal(signal.SIGSTOP)  # it is there, and does nothing
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as trial:
        trial_process = identify(trial.pid)
        assert trial_process is not None
        assert holder.start(claim, trial_process, "cpu")
        assert watcher.reap() == []
        clock.wait(59, watcher.reap)  # type: ignore[attr-defined]
        assert watcher.reap() == []
        clock.now += 1  # type: ignore[attr-defined]
        assert [reaped.state for reaped in watcher.reap()] == [TrialState.WAITING]
        assert trial.wait(10) == -9
    assert holder.report(claim, epoch=1, accuracy=0.5) is Verdict.LOST
    assert study.trials()[0].intermediate_values == {}


def test_a_watcher_that_did_not_look_has_seen_no_silence(
    make_study: MakeStudy, clock: Callable[[], float], elsewhere: Callable[[str], Worker]
) -> None:
    study = make_study()
    watcher = Leases(study, lease_seconds=60, clock=clock)
    claimed(Leases(study), elsewhere("a"))
    assert watcher.reap() == []
    for _ in range(4):
        clock.now += 31  # type: ignore[attr-defined]
        assert watcher.reap() == []  # both may have been suspended
    clock.wait(60, watcher.reap)  # type: ignore[attr-defined]
    assert len(watcher.reap()) == 1
