"""Workers that die are started again, with longer and longer pauses, not for ever; those that are stuck are ended."""

import errno
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.engines import restarts as module
from igkd_hpo.engines.engine import Host, Watcher, run_slots
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local import supervisor
from igkd_hpo.engines.local.engine import LocalEngine
from igkd_hpo.engines.local.worker_main import WorkerTask
from igkd_hpo.engines.local.worker_process import WorkerProcess
from igkd_hpo.engines.restarts import restart_pause
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Settings
from tests.fixtures.forking import own_fork_servers


@pytest.fixture
def study(sqlite_url: str) -> Iterator[SearchStudy]:
    """One trial, nothing prepared: no worker ever trains here."""
    storage = open_storage(sqlite_url, create=True)
    file = read_study(builtin_studies()["digits"]).model_copy(update={"controls": (), "n_trials": 1})
    yield create_or_open(storage, file, n_trials=1, pins=None)
    storage.engine.dispose()


def supervise(
    engine: LocalEngine,
    study: SearchStudy,
    settings: Settings,
    on_message: Callable[[str], None],
    on_event: Callable[[int, Event], None] = lambda slot, event: None,
    *,
    slots: int = 1,
) -> bool:
    watcher = Watcher(on_event=on_event, on_message=on_message, on_refresh=lambda: None)
    with engine, StopSignal() as stop:
        return run_slots(engine, study, Host(settings=settings, device="cpu", stop=stop), watcher, slots=slots)


def test_pauses_double_up_to_a_minute() -> None:
    assert [restart_pause(count) for count in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_worker_that_cannot_live_is_given_up_after_its_restarts(
    study: SearchStudy, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(module, "MAX_RESTARTS", 2)
    # The workers look for a database that is not there: each ends with exit code 2 as soon as it is up.
    settings = Settings.resolve(storage_url=f"sqlite:///{tmp_path}/nowhere.db")
    said: list[str] = []
    assert not supervise(LocalEngine(), study, settings, said.append)
    assert len(said) == 3
    assert re.match(r"worker 0 ended \(exit code 2\); .*again in 0 s; ", said[0])
    assert said[-1].startswith("worker 0 ended 3 times (exit code 2) ")
    log = settings.paths.worker_log(study.name, "0").read_text()
    assert log.count("nowhere.db") == 3


def test_a_stopped_worker_is_ended_and_another_one_takes_its_place(
    study: SearchStudy, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_SECONDS", 0.01)
    settings = replace(Settings.resolve(storage_url=sqlite_url), lease_seconds=600.0)
    leases = Leases(study)
    claim = leases.claim(Worker(name="test", process=this_process()))  # the only trial: the workers can only wait
    assert isinstance(claim, Claim)
    said: list[str] = []
    pids: list[int] = []

    def hear(slot: int, event: Event) -> None:
        assert engine._supervisor is not None
        (worker,) = engine._supervisor._workers
        assert worker.process is not None
        if not pids:
            os.kill(worker.process.pid, signal.SIGSTOP)
            monkeypatch.setattr(module, "SILENT_LEASES", 0.002)  # 1.2 seconds
        elif worker.process.pid != pids[0]:
            leases.complete(claim, 0.5, {})
        pids.append(worker.process.pid)

    def note(text: str) -> None:
        said.append(text)
        monkeypatch.setattr(module, "SILENT_LEASES", 5)  # the next worker may take its time to start

    engine = LocalEngine()
    assert supervise(engine, study, settings, note, hear), said
    stuck, ended = said
    assert re.fullmatch(r"worker 0 .*nothing for \d+ s .*", stuck)
    assert ended.startswith("worker 0 ended (SIGKILL); ")
    assert len(set(pids)) == 2
    assert study.counts().complete == 1


@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_a_worker_that_has_not_spoken_yet_gets_time_to_start_which_ends_too(
    study: SearchStudy, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_WORD_SECONDS", seconds)
    monkeypatch.setattr(module, "SILENT_LEASES", 0)  # shorter than any import
    leases = Leases(study)
    claim = leases.claim(Worker(name="test", process=this_process()))  # the only trial: the workers can only wait
    assert isinstance(claim, Claim)
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)
        monkeypatch.setattr(module, "FIRST_WORD_SECONDS", 600.0)

    def hear(slot: int, event: Event) -> None:
        monkeypatch.setattr(module, "SILENT_LEASES", 5)
        leases.complete(claim, 0.5, {})

    assert supervise(LocalEngine(), study, Settings.resolve(storage_url=sqlite_url), note, hear), said
    ends = [text for text in said if "SIGKILL" in text]
    assert len(ends) == (1 if seconds == 0.0 else 0)


def test_a_worker_that_cannot_be_started_leaves_none_of_the_others(
    study: SearchStudy, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[WorkerProcess] = []

    def make(task: WorkerTask, log: Path) -> WorkerProcess:
        if len(started) == 2:
            raise OSError(errno.EMFILE, "too many open files")
        started.append(WorkerProcess(task, log))
        return started[-1]

    monkeypatch.setattr(supervisor, "WorkerProcess", make)
    before = signal.getsignal(signal.SIGTSTP)
    with pytest.raises(OSError, match="too many"):
        supervise(LocalEngine(), study, Settings.resolve(storage_url=sqlite_url), lambda text: None, slots=3)
    assert len([process for process in started if process.poll() is not None]) == 2
    assert signal.getsignal(signal.SIGTSTP) is before


def test_a_pause_reaches_workers_and_what_was_forked_for_them(
    study: SearchStudy, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.resolve(storage_url=sqlite_url)
    leases = Leases(study)
    claim = leases.claim(Worker(name="test", process=this_process()))  # the only trial: the worker can only wait
    assert isinstance(claim, Claim)
    paused: list[set[str]] = []
    kill = os.kill

    def states() -> set[str]:
        assert engine._supervisor is not None
        (worker,) = engine._supervisor._workers
        assert worker.process is not None
        assert engine.fork_server.pid is not None
        return {psutil.Process(pid).status() for pid in (worker.process.pid, engine.fork_server.pid)}

    def stop_myself(pid: int, number: int) -> None:
        """In place of the signal that would stop the tests: `fg` comes at once."""
        assert (pid, number) == (os.getpid(), signal.SIGSTOP)
        while "stopped" not in (now := states()) or len(now) > 1:
            pass
        paused.append(now)

    def hear(slot: int, event: Event) -> None:
        if not paused:
            monkeypatch.setattr(os, "kill", stop_myself)
            signal.raise_signal(signal.SIGTSTP)
            monkeypatch.setattr(os, "kill", kill)
            leases.complete(claim, 0.5, {})

    with own_fork_servers():
        engine = LocalEngine()
    before = signal.getsignal(signal.SIGTSTP)
    assert supervise(engine, study, settings, lambda text: None, hear)
    assert engine.fork_server.pid is None, "nothing is left running"
    assert paused == [{"stopped"}]
    assert signal.getsignal(signal.SIGTSTP) is before
