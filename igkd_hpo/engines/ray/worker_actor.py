"""An actor of Ray: one slot, which runs one supervised worker process at a time and passes on what it says.

The worker is no part of the actor's process: it forks trials, and hears signals in its main thread, and neither may
happen beside Ray's own threads. It ends when the actor does, however that ends, and releases its trial.
"""

import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

from igkd_hpo.assets.parcel import chunks_at, receive
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local import worker_main
from igkd_hpo.engines.local.worker_process import WorkerProcess
from igkd_hpo.engines.ray.messages import WorkerEnd, WorkerPlace, WorkerTask
from igkd_hpo.engines.ray.node import chunks_from, find_fault, is_shared, settings_there
from igkd_hpo.engines.restarts import longest_silence
from igkd_hpo.errors import ExitCode, IgkdError
from igkd_hpo.files import make_folder
from igkd_hpo.remote import Remote
from igkd_hpo.search.lease import Worker
from igkd_hpo.settings import host_name
from igkd_hpo.words import byte_size

STOP_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_GATHER_SECONDS = 0.5  # a call costs 3 ms of CPU at each end, and epochs may take a tenth of a second
_TAIL_BYTES = 4096


class WorkerActor:
    """One slot of a launch; its methods run in threads, side by side."""

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._settings = settings_there(task.place)
        self._log = self._settings.paths.worker_log(task.study_folder, str(task.slot.number))
        self._name = f"{host_name()}-{os.getpid()}-{task.slot.number}"
        self._process: WorkerProcess | None = None
        self._stopping = False
        self._ended = False
        self._claimed = 0.0  # as files are dated
        self._said: list[Event | str] = []
        self._changed = threading.Condition()

    def place(self, caller_version: str) -> WorkerPlace:
        """Say where this is, as soon as there is room for it."""
        return WorkerPlace(host=host_name(), shared=is_shared(self._task.place), fault=find_fault(caller_version))

    def run(self) -> WorkerEnd:
        """Fetch the assets that are missing here, run a worker, and say how it ended."""
        self._ended, where = False, f"{self._log} on {host_name()}"
        try:
            if not is_shared(self._task.place):
                self._fetch()
            code, why = self._run()
        except IgkdError as error:
            code, why = int(error.exit_code), str(error)
        except OSError as error:
            code, why = ExitCode.FAILED, f"cannot write {self._log}: {error.strerror or error}"
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        return WorkerEnd(exit_code=code, why=why, where=where)

    def events(self) -> list[Event | str]:
        """Return what was said since the last call, lines for people included; wait a moment for it, and for more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, _GATHER_SECONDS)
            self._changed.wait_for(lambda: self._said or self._ended, _LOOK_SECONDS)
            said, self._said = self._said, []
            return said

    def stop(self) -> Worker | None:
        """End the worker in order; return it if it had to be killed, for it may hold a trial."""
        self._stopping = True
        if self._process is None:
            return None
        self._process.ask_to_end()
        killed = self._process.end_by(STOP_SECONDS)
        return None if killed is None else Worker(name=self._name, process=killed)

    def results(self, trial: int, attempt: int) -> dict[str, bytes]:
        """Return what a trial that ended leaves in this node's folder, by names below it: weights, and pictures."""
        paths = self._settings.paths
        left = [path for path in paths.artifacts.glob("[!.]*") if path.stat().st_mtime >= self._claimed]
        weights = paths.checkpoint(self._task.study_folder, trial, attempt)
        left += [weights] if weights.exists() else []
        return {str(path.relative_to(paths.root)): path.read_bytes() for path in left}

    def _fetch(self) -> None:
        parcel = self._task.place.parcel
        assert parcel is not None, "assets are packed before workers start"
        if (url := self._settings.remote) is None:
            chunks = chunks_from(self._task.sender, self._task.sender_root)
        else:
            chunks = chunks_at(Remote(url), parcel)
        if received := receive(parcel, AssetStore(self._settings.paths.assets), chunks, SilentProgress()):
            self._say(f"{byte_size(received)} of assets sent to {host_name()}")

    def _run(self) -> tuple[int, str]:
        folder = self._settings.paths.root.parent
        make_folder(folder)
        os.chdir(folder)
        if self._stopping:
            return 128, ""
        written = self._log.stat().st_size if self._log.exists() else 0
        task = worker_main.WorkerTask(
            study=self._task.study, settings=self._settings, name=self._name, slot=self._task.slot, fork_server=None
        )
        process = self._process = WorkerProcess(task, self._log)
        heard, spoke = time.monotonic(), False
        while process.talks:
            if wait([process.events], _LOOK_SECONDS):
                for event in process.read():
                    heard, spoke = time.monotonic(), True
                    if event.kind != "alive":
                        self._say(str(event.reason) if event.kind == "reaped" else event)
            elif time.monotonic() - heard >= longest_silence(self._settings.lease_seconds, spoke=spoke):
                break
        killed = process.end_by(STOP_SECONDS)
        process.close()
        code = process.poll()
        assert code is not None
        if killed is not None:
            return code, f"it had said nothing for {time.monotonic() - heard:.0f} s"
        return code, "" if code == ExitCode.DONE else _last_line(self._log, written)

    def _say(self, said: Event | str) -> None:
        if isinstance(said, Event) and said.kind == "claimed":
            self._claimed = time.time() - 1
        with self._changed:
            self._said.append(said)
            self._changed.notify_all()


def _last_line(log: Path, since: int) -> str:
    """Return the last line that was written into a log since it was so long; empty where there is none."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
