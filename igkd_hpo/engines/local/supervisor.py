"""The supervisor: starts one worker per slot, watches them, starts a dead one again, and frees what the dead held."""

import os
import selectors
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from igkd_hpo.engines.engine import Host, SlotState, Watcher, drop_worker, refresh
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.worker_main import WorkerTask
from igkd_hpo.engines.local.worker_process import WorkerProcess, signal_session
from igkd_hpo.engines.restarts import Restarts, describe_exit, longest_silence
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.errors import ExitCode
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Leases, Worker
from igkd_hpo.search.study import SearchStudy

TICK_SECONDS = 0.5
STOP_SECONDS = 5.0


@dataclass(kw_only=True)
class SupervisedWorker:
    """One slot: its process now, and how often it had to be started again."""

    slot: Slot
    name: str
    process: WorkerProcess | None = None
    restarts: Restarts = field(default_factory=Restarts)
    silence: float = 0.0
    spoke: bool = False
    exit_code: int | None = None

    @property
    def to_restart(self) -> bool:
        """Whether the process has died and is worth another start."""
        return self.process is None and self.exit_code != ExitCode.DONE and not self.restarts.given_up

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
        lease_seconds = self._host.settings.lease_seconds
        for worker in self._workers:
            worker.silence += passed
            if worker.process is not None and worker.process.poll() is not None:
                self._take_leave(worker)
            elif worker.process is not None and worker.silence >= longest_silence(lease_seconds, spoke=worker.spoke):
                text = f"worker {worker.slot.number} has said nothing for {worker.silence:.0f} s and is ended"
                self._watcher.on_message(text)
                worker.process.signal(signal.SIGKILL)
                worker.silence = 0.0
            elif worker.to_restart and now >= worker.restarts.at:
                self._start(worker)
        return [worker.state for worker in self._workers]

    def stop(self) -> None:
        """Ask every worker to end, wait, kill; then release what a killed one still held."""
        if self._old_pause is not None:
            signal.signal(signal.SIGTSTP, self._old_pause)
        running = [(worker, worker.process) for worker in self._workers if worker.process is not None]
        for _, process in running:
            process.ask_to_end()
        deadline = time.monotonic() + STOP_SECONDS
        for worker, process in running:
            killed = process.end_by(deadline - time.monotonic())
            if killed is not None:
                drop_worker(self._leases, self._watcher, Worker(name=worker.name, process=killed))
            self._read(worker)
            self._let_go(worker)
        self._selector.close()

    def _start(self, worker: SupervisedWorker) -> None:
        task = WorkerTask(
            study=self._study.name,
            settings=self._host.settings,
            name=worker.name,
            slot=worker.slot,
            fork_server=self._fork_server.descriptor,
        )
        worker.process = WorkerProcess(task, self._log(worker))
        worker.exit_code = None
        worker.silence, worker.spoke = 0.0, False
        self._selector.register(worker.process.events, selectors.EVENT_READ, worker)

    def _read(self, worker: SupervisedWorker) -> None:
        assert worker.process is not None
        talked = worker.process.talks
        for event in worker.process.read():
            worker.silence, worker.spoke = 0.0, True
            if event.kind == "reaped":
                self._watcher.on_message(str(event.reason))
            elif event.kind != "alive":
                if event.kind in {"complete", "pruned"}:
                    worker.restarts.finished_a_trial()
                self._watcher.on_event(worker.slot.number, event)
        if talked and not worker.process.talks:
            self._selector.unregister(worker.process.events)

    def _take_leave(self, worker: SupervisedWorker) -> None:
        """Note how a worker ended, and when it starts again."""
        assert worker.process is not None
        self._read(worker)
        worker.exit_code = worker.process.poll()
        self._let_go(worker)
        assert worker.exit_code is not None
        if worker.exit_code == ExitCode.DONE:
            return
        refresh(self._leases, self._watcher)
        number, log = worker.slot.number, str(self._log(worker))
        how = describe_exit(worker.exit_code)
        self._watcher.on_message(worker.restarts.died(number, how, log, now=time.monotonic()))

    def _let_go(self, worker: SupervisedWorker) -> None:
        assert worker.process is not None
        if worker.process.talks:
            self._selector.unregister(worker.process.events)
        worker.process.close()
        worker.process = None

    def _log(self, worker: SupervisedWorker) -> Path:
        return self._host.settings.paths.worker_log(self._study.folder, str(worker.slot.number))

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Pause with Ctrl-Z what a terminal's signal does not reach: the workers, and all that was forked for them."""
        leaders = [worker.process.pid for worker in self._workers if worker.process is not None]
        leaders += [pid for pid in (self._fork_server.pid,) if pid is not None]
        for leader in leaders:
            signal_session(leader, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for leader in leaders:  # `fg` has let us go on
            signal_session(leader, signal.SIGCONT)
