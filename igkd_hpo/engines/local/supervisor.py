"""The supervisor: starts one worker per slot, watches them, starts a dead one again, and frees what the dead held."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.fork_server import fork_server
from igkd_hpo.engines.local.preparation import worker_environment
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import ExitCode, StorageError
from igkd_hpo.search.identity import ProcessIdentity, identify, this_process
from igkd_hpo.search.lease import Leases, Worker
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings

TICK_SECONDS = 0.5
REFRESH_SECONDS = 2.0
STOP_SECONDS = 5.0
FIRST_RESTART_SECONDS = 1.0
LAST_RESTART_SECONDS = 60.0
MAX_RESTARTS = 5  # in a row, of one slot, without a trial that it finished in between
SILENT_LEASES = 5  # a worker that says nothing for so many lease times is stopped or stuck; a database that does not
# answer may keep it silent for one or two


@dataclass(kw_only=True)
class SupervisedWorker:
    """One slot: its process now, and how often it had to be started again."""

    slot: int
    name: str
    process: subprocess.Popen[bytes] | None = None
    identity: ProcessIdentity | None = None
    unread: bytes = b""
    restarts: int = 0
    restart_at: float = 0.0
    silence: float = 0.0
    exit_code: int | None = None
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def to_restart(self) -> bool:
        """Whether the process has died and is worth another start."""
        return self.process is None and self.exit_code != ExitCode.DONE and self.restarts <= MAX_RESTARTS


def restart_pause(restarts: int) -> float:
    """Seconds before the start number `restarts`, from 1, of a worker that died: each pause is twice the last."""
    return min(FIRST_RESTART_SECONDS * 2.0 ** (restarts - 1), LAST_RESTART_SECONDS)


class Supervisor:
    """Runs a study with `workers` slots on this host.

    Args:
        workers: how many slots; each trains one trial at a time.
        device: auto, cpu, cuda or cuda:N.
        on_event: told of everything that a worker says, with its slot.
        on_message: told what a person should read.
        on_refresh: called every few seconds, when the database may hold something new.
    """

    def __init__(
        self,
        study: SearchStudy,
        settings: Settings,
        *,
        workers: int,
        device: str,
        stop: StopSignal,
        on_event: Callable[[int, Event], None],
        on_message: Callable[[str], None],
        on_refresh: Callable[[], None],
    ) -> None:
        self._study = study
        self._settings = settings
        self._device = device
        self._stop = stop
        self._on_event = on_event
        self._on_message = on_message
        self._on_refresh = on_refresh
        self._leases = Leases(study, lease_seconds=settings.lease_seconds)
        self._looked = time.monotonic()
        self._threads = max(1, len(os.sched_getaffinity(0)) // workers)
        prefix = f"{this_process().host}-{os.getpid()}"
        self._workers = [SupervisedWorker(slot=slot, name=f"{prefix}-{slot}") for slot in range(workers)]
        self._selector = selectors.DefaultSelector()

    def run(self) -> bool:
        """Until every worker has left by itself, or a signal came. False when a worker could not be kept alive."""
        self._selector.register(self._stop.descriptor, selectors.EVENT_READ, None)
        next_refresh = 0.0
        try:
            for worker in self._workers:
                self._start(worker)
            while self._stop.received is None and self._step():
                if time.monotonic() >= next_refresh:
                    self._refresh()
                    next_refresh = time.monotonic() + REFRESH_SECONDS
            return all(worker.exit_code == ExitCode.DONE for worker in self._workers)
        finally:
            self._end_all()
            fork_server().stop()  # the process that launched may live on, a notebook's for example
            self._selector.close()
            self._refresh()

    def _start(self, worker: SupervisedWorker) -> None:
        log = self._settings.paths.worker_log(self._study.name, str(worker.slot))
        log.parent.mkdir(parents=True, exist_ok=True)
        worker.log = log.open("ab")
        command = [sys.executable, "-m", "igkd_hpo", "worker", self._study.name, "--supervised"]
        command += ["--name", worker.name, "--slot", str(worker.slot)]
        command += ["--threads", str(self._threads), "--device", self._device]
        command += ["--fork-server", str(fork_server().descriptor)]
        worker.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # never written to: its end tells the worker that the supervisor has gone
            stdout=subprocess.PIPE,
            stderr=worker.log,
            env=worker_environment(self._settings),
            pass_fds=[fork_server().descriptor],
            start_new_session=True,  # a terminal's Ctrl-C comes here alone, and workers are stopped in order
        )
        worker.identity = identify(worker.process.pid)
        worker.exit_code = None
        worker.silence = 0.0
        assert worker.process.stdout is not None
        os.set_blocking(worker.process.stdout.fileno(), False)
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def _step(self) -> bool:
        """Wait for something and deal with it; False once no worker is left."""
        for key, _ in self._selector.select(TICK_SECONDS):
            if isinstance(key.data, SupervisedWorker):
                self._read(key.data)
        fork_server().keep_running()
        now = time.monotonic()
        # Time in which the supervisor itself was stopped counts for nothing: its workers may have been stopped with it.
        passed = min(now - self._looked, 2 * TICK_SECONDS)
        self._looked = now
        for worker in self._workers:
            worker.silence += passed
            if worker.process is not None and worker.process.poll() is not None:
                self._left(worker)
            elif worker.process is not None and worker.silence >= SILENT_LEASES * self._settings.lease_seconds:
                self._on_message(f"worker {worker.slot} has said nothing for {worker.silence:.0f} s and is ended")
                self._kill_group(worker.process.pid)
                worker.silence = 0.0
            elif worker.to_restart and now >= worker.restart_at:
                self._start(worker)
        return any(worker.process is not None or worker.to_restart for worker in self._workers)

    def _read(self, worker: SupervisedWorker) -> None:
        assert worker.process is not None
        assert worker.process.stdout is not None
        while chunk := worker.process.stdout.read(65536):
            worker.unread += chunk
        *lines, worker.unread = worker.unread.split(b"\n")
        for line in lines:
            worker.silence = 0.0
            event = Event.from_line(line.decode())
            if event.kind == "alive":
                continue
            if event.kind == "reaped":
                self._on_message(str(event.reason))
                continue
            if event.kind in {"complete", "pruned"}:
                worker.restarts = 0
            self._on_event(worker.slot, event)

    def _left(self, worker: SupervisedWorker) -> None:
        assert worker.process is not None
        self._read(worker)
        worker.exit_code = worker.process.returncode
        self._let_go(worker)
        if worker.exit_code == ExitCode.DONE:
            return
        self._free_leases()
        worker.restarts += 1
        how = signal.Signals(-worker.exit_code).name if worker.exit_code < 0 else f"exit code {worker.exit_code}"
        log = self._settings.paths.worker_log(self._study.name, str(worker.slot))
        if worker.restarts > MAX_RESTARTS:
            self._on_message(f"worker {worker.slot} ended {worker.restarts} times ({how}) and stays down; see {log}")
            return
        pause = restart_pause(worker.restarts)
        worker.restart_at = time.monotonic() + pause
        self._on_message(f"worker {worker.slot} ended ({how}); it starts again in {pause:.0f} s; see {log}")

    def _let_go(self, worker: SupervisedWorker) -> None:
        if worker.process is None:
            return
        assert worker.process.stdin is not None
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        worker.process.stdin.close()
        worker.process.stdout.close()
        worker.process = None
        worker.unread = b""
        if worker.log is not None:
            worker.log.close()
            worker.log = None

    def _end_all(self) -> None:
        """Ask, wait, kill; then give back what a killed worker still held."""
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
                self._kill_group(worker.process.pid)
                worker.process.wait()
                if worker.identity is not None:
                    self._drop(Worker(name=worker.name, process=worker.identity))
            self._read(worker)
            worker.exit_code = worker.process.returncode
            self._let_go(worker)

    def _drop(self, worker: Worker) -> None:
        try:
            self._leases.drop_worker(worker)
        except StorageError as error:
            self._on_message(f"{error}; the next launch frees the trial of {worker.name}")

    @staticmethod
    def _kill_group(leader: int) -> None:
        try:
            os.killpg(
                leader, signal.SIGKILL
            )  # the session that _start made: the worker's; its trial process leaves with it
        except ProcessLookupError:
            return

    def _free_leases(self) -> None:
        try:
            for reaped in self._leases.reap():
                self._on_message(str(reaped))
        except StorageError as error:
            self._on_message(str(error))

    def _refresh(self) -> None:
        self._free_leases()
        try:
            self._on_refresh()
        except StorageError as error:
            self._on_message(str(error))
