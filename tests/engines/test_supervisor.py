"""Workers that die are started again, with longer and longer pauses, not for ever; those that are stuck are ended."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local import supervisor as module
from igkd_hpo.engines.local.fork_server import fork_server
from igkd_hpo.engines.local.supervisor import MAX_RESTARTS, Supervisor, restart_pause
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Settings


@pytest.fixture
def study(sqlite_url: str) -> Iterator[SearchStudy]:
    """One trial, nothing prepared: no worker ever trains here."""
    storage = open_storage(sqlite_url, create=True)
    file = read_study(builtin_studies()["digits"]).model_copy(update={"controls": (), "n_trials": 1})
    yield create_or_open(storage, file, n_trials=1, pins=None)
    storage.engine.dispose()


def supervised(
    study: SearchStudy,
    settings: Settings,
    stop: StopSignal,
    on_message: Callable[[str], None],
    on_event: Callable[[int, Event], None] = lambda slot, event: None,
) -> Supervisor:
    return Supervisor(
        study,
        settings,
        workers=1,
        device="cpu",
        stop=stop,
        on_event=on_event,
        on_message=on_message,
        on_refresh=lambda: None,
    )


def test_pauses_double_up_to_a_minute() -> None:
    assert [restart_pause(count) for count in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_worker_that_cannot_live_is_given_up_after_five_restarts(
    study: SearchStudy, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_SECONDS", 0.01)
    # The workers look for a database that is not there: each ends with exit code 2 as soon as it is up.
    settings = Settings.resolve(storage_url=f"sqlite:///{tmp_path}/nowhere.db")
    said: list[str] = []
    with StopSignal() as stop:
        assert not supervised(study, settings, stop, said.append).run()
    assert fork_server()._process is None, "nothing is left running"
    assert len(said) == MAX_RESTARTS + 1
    assert said[0].startswith("worker 0 ended (exit code 2); it starts again in 0 s; see ")
    assert said[-1].startswith("worker 0 ended 6 times (exit code 2) and stays down; see ")
    log = settings.paths.worker_log(study.name, "0").read_text()
    assert log.count("nowhere.db") == MAX_RESTARTS + 1


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
        (worker,) = supervisor._workers
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

    with StopSignal() as stop:
        supervisor = supervised(study, settings, stop, note, hear)
        assert supervisor.run(), said
    stuck, ended = said
    assert re.fullmatch(r"worker 0 has said nothing for \d+ s and is ended", stuck)
    assert ended.startswith("worker 0 ended (SIGKILL); it starts again")
    assert len(set(pids)) == 2
    assert study.counts().complete == 1
