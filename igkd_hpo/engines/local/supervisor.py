"""The supervisor: starts one worker per slot, watches them, starts a dead one again, and frees what the dead held."""

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

from igkd_hpo.engines.engine import Host, SlotState, Watcher, refresh
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.fork_server import AS_MODULE, ForkServer
from igkd_hpo.engines.local.worker_main import WorkerTask
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.errors import ExitCode, StorageError
from igkd_hpo.files import make_folder
from igkd_hpo.search.identity import identify, this_process
from igkd_hpo.search.lease import Leases, Worker
from igkd_hpo.search.study import SearchStudy

TICK_SECONDS = 0.5
STOP_SECONDS = 5.0
FIRST_RESTART_SECONDS = 1.0
LAST_RESTART_SECONDS = 60.0
MAX_RESTARTS = 5  # in a row, of one slot, without a trial that it finished in between
SILENT_LEASES = 5  # a worker that says nothing for so many lease times is stopped or stuck; a database that does not
# answer may keep it silent for one or two


@dataclass(kw_only=True)
class SupervisedWorker:
    """One slot: its process now, and how often it had to be started again."""

    slot: Slot
    name: str
    process: subprocess.Popen[bytes] | None = None
    events: Connection | None = None
    restarts: int = 0
    restart_at: float = 0.0
    silence: float = 0.0
    exit_code: int | None = None
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def to_restart(self) -> bool:
        """Whether the process has died and is worth another start."""
        return self.process is None and self.exit_code != ExitCode.DONE and self.restarts <= MAX_RESTARTS

    @property
    def state(self) -> SlotState:
        """The slot as an engine tells of it."""
        phase: Literal["running", "restarting", "done", "down"] = "down"
        if self.process is not None:
            phase = "running"
        elif self.to_restart:
            phase = "restarting"
        elif self.exit_code == ExitCode.DONE:
            phase = "done"
        return SlotState(number=self.slot.number, phase=phase)


def restart_pause(restarts: int) -> float:
    """Return the seconds before start number `restarts`, from 1, of a worker that died: each is twice the last."""
    return min(FIRST_RESTART_SECONDS * 2.0 ** (restarts - 1), LAST_RESTART_SECONDS)


class Supervisor:
    """Runs `slots` workers of a study in processes of this host; each trains one trial at a time."""

    def __init__(
        self, study: SearchStudy, host: Host, watcher: Watcher, fork_server: ForkServer, *, slots: int
    ) -> None:
        self._study = study
        self._host = host
        self._watcher = watcher
        self._fork_server = fork_server
        self._leases = Leases(study, lease_seconds=host.settings.lease_seconds)
        self._looked = time.monotonic()
        threads = max(1, len(os.sched_getaffinity(0)) // slots)
        prefix = f"{this_process().host}-{os.getpid()}"
        self._workers = [
            SupervisedWorker(slot=Slot(number=n, device=host.device, threads=threads), name=f"{prefix}-{n}")
            for n in range(slots)
        ]
        self._selector = selectors.DefaultSelector()
        self._selector.register(host.stop.descriptor, selectors.EVENT_READ, None)
        self._old_pause: Any = None
        if threading.current_thread() is threading.main_thread():
            self._old_pause = signal.signal(signal.SIGTSTP, self._pause)

    def start(self) -> None:
        """Start every worker."""
        for worker in self._workers:
            self._start(worker)

    def poll(self) -> Sequence[SlotState]:
        """Wait for something, at most half a second, and deal with it; return every slot's state."""
        for key, _ in self._selector.select(min(TICK_SECONDS, self._host.settings.heartbeat_seconds)):
            if isinstance(key.data, SupervisedWorker):
                self._read(key.data)
        self._fork_server.keep_running()
        now = time.monotonic()
        # Time in which the supervisor itself was stopped counts for nothing: its workers may have been stopped with it.
        passed = min(now - self._looked, 2 * TICK_SECONDS)
        self._looked = now
        for worker in self._workers:
            worker.silence += passed
            if worker.process is not None and worker.process.poll() is not None:
                self._take_leave(worker)
            elif worker.process is not None and worker.silence >= SILENT_LEASES * self._host.settings.lease_seconds:
                text = f"worker {worker.slot.number} has said nothing for {worker.silence:.0f} s and is ended"
                self._watcher.on_message(text)
                _signal_group(worker.process.pid, signal.SIGKILL)
                worker.silence = 0.0
            elif worker.to_restart and now >= worker.restart_at:
                self._start(worker)
        return [worker.state for worker in self._workers]

    def stop(self) -> None:
        """Ask every worker to end, wait, kill; then release what a killed one still held."""
        if self._old_pause is not None:
            signal.signal(signal.SIGTSTP, self._old_pause)
        running = [worker for worker in self._workers if worker.process is not None]
        for worker in running:
            assert worker.process is not None
            worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in running:
            assert worker.process is not None
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                identity = identify(worker.process.pid)
                _signal_group(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
                if identity is not None:
                    self._drop(Worker(name=worker.name, process=identity))
            self._read(worker)
            worker.exit_code = worker.process.returncode
            self._let_go(worker)
        self._selector.close()

    def _start(self, worker: SupervisedWorker) -> None:
        log = self._log(worker)
        make_folder(log.parent)
        worker.log = log.open("ab")
        worker.process = subprocess.Popen(
            [sys.executable, *AS_MODULE, "igkd_hpo.engines.local.worker_main"],
            stdin=subprocess.PIPE,  # its task; after that, its end tells the worker that the supervisor has gone
            stdout=subprocess.PIPE,
            stderr=worker.log,
            pass_fds=[self._fork_server.descriptor],
            start_new_session=True,  # a terminal's Ctrl-C comes here alone, and workers are stopped in order
        )
        task = WorkerTask(
            study=self._study.name,
            settings=self._host.settings,
            name=worker.name,
            slot=worker.slot,
            fork_server=self._fork_server.descriptor,
        )
        assert worker.process.stdin is not None
        assert worker.process.stdout is not None
        worker.events = Connection(os.dup(worker.process.stdout.fileno()), writable=False)
        worker.process.stdout.close()
        try:
            with Connection(os.dup(worker.process.stdin.fileno()), readable=False) as given:
                given.send(task)
        except BrokenPipeError:  # it has ended already; the next look says how
            pass
        worker.exit_code = None
        worker.silence = 0.0
        self._selector.register(worker.events, selectors.EVENT_READ, worker)

    def _read(self, worker: SupervisedWorker) -> None:
        while worker.events is not None and worker.events.poll():
            try:
                event: Event = worker.events.recv()
            except (EOFError, OSError):  # it has ended
                self._selector.unregister(worker.events)
                worker.events.close()
                worker.events = None
                return
            worker.silence = 0.0
            if event.kind == "reaped":
                self._watcher.on_message(str(event.reason))
            elif event.kind != "alive":
                worker.restarts = 0 if event.kind in {"complete", "pruned"} else worker.restarts
                self._watcher.on_event(worker.slot.number, event)

    def _take_leave(self, worker: SupervisedWorker) -> None:
        """Note how a worker ended, and when it starts again."""
        assert worker.process is not None
        self._read(worker)
        worker.exit_code = worker.process.returncode
        self._let_go(worker)
        if worker.exit_code == ExitCode.DONE:
            return
        refresh(self._leases, self._watcher)
        worker.restarts += 1
        how = signal.Signals(-worker.exit_code).name if worker.exit_code < 0 else f"exit code {worker.exit_code}"
        number, log = worker.slot.number, self._log(worker)
        if worker.restarts > MAX_RESTARTS:
            text = f"worker {number} ended {worker.restarts} times ({how}) and stays down; see {log}"
        else:
            pause = restart_pause(worker.restarts)
            worker.restart_at = time.monotonic() + pause
            text = f"worker {number} ended ({how}); it starts again in {pause:.0f} s; see {log}"
        self._watcher.on_message(text)

    def _let_go(self, worker: SupervisedWorker) -> None:
        assert worker.process is not None
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.process = None
        if worker.events is not None:
            self._selector.unregister(worker.events)
            worker.events.close()
            worker.events = None
        if worker.log is not None:
            worker.log.close()
            worker.log = None

    def _log(self, worker: SupervisedWorker) -> Path:
        return self._host.settings.paths.worker_log(self._study.folder, str(worker.slot.number))

    def _drop(self, worker: Worker) -> None:
        try:
            self._leases.drop_worker(worker)
        except StorageError as error:
            self._watcher.on_message(f"{error}; the next launch frees the trial of {worker.name}")

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Pause with Ctrl-Z what a terminal's signal does not reach: the workers, and all that was forked for them."""
        leaders = [worker.process.pid for worker in self._workers if worker.process is not None]
        leaders += [pid for pid in (self._fork_server.pid,) if pid is not None]
        for leader in leaders:
            _signal_group(leader, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for leader in leaders:  # `fg` has let us go on
            _signal_group(leader, signal.SIGCONT)


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)  # the session that was started for it; a trial process leaves with its worker
    except ProcessLookupError:
        return
