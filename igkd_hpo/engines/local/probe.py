"""Measure how many trials side by side pay on this host, in processes forked as trial processes are."""

import math
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from igkd_hpo.config.study import Study
from igkd_hpo.engines.engine import Host
from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.probe_main import (
    Devices,
    NoMemory,
    ProbeTask,
    Rate,
    Running,
    find_devices,
    train_until_told,
)
from igkd_hpo.engines.probe import Probe, find_worthwhile
from igkd_hpo.errors import IgkdError, Interrupted

SLOT_BYTES = 82 << 20
"""Host memory that a worker takes beside its trial process."""
FORK_SERVER_BYTES = 423 << 20
"""Host memory of the fork server, once for all; both measured as unique set sizes, `digits`, CPU, torch 2.15."""

_STEPS = 6  # the time of so many steps is measured, within these bounds in seconds
_SHORTEST, _LONGEST = 1.0, 4.0
_PATIENCE = 120.0  # seconds for trainings to run steadily, or to answer
_LOOK_SECONDS = 1.0  # how often to see that the server still runs

_Argument = TypeVar("_Argument")
_Answer = TypeVar("_Answer")


def measure_workers(server: ForkServer, study: Study, host: Host) -> Probe:
    """Measure how many workers pay, from some seconds of training.

    Raises:
        Interrupted: a signal came; nothing has begun.
        UsageError: the device is not there, or the study's assets are not.
        IgkdError: what else keeps the study from being trained here.
    """
    asked = _ProbeProcess(server, find_devices, host.device, host)
    try:
        devices = asked.hear(Devices).names
    finally:
        asked.close()
    cores = len(os.sched_getaffinity(0))
    trainings = _Trainings(server, study, host, devices[0], cores)
    try:
        return find_worthwhile(trainings, devices, cores)
    finally:
        trainings.clear()


class _Trainings:
    """The trainings that run now, on one device."""

    def __init__(self, server: ForkServer, study: Study, host: Host, device: str, cores: int) -> None:
        self._server, self._study, self._host, self._device, self._cores = server, study, host, device, cores
        self._running: list[_ProbeProcess] = []
        self._steady = 0
        self._step_seconds = 0.0
        self.trial_bytes = 0
        self.free_bytes = 0

    def measure(self, trials: int) -> float | None:
        """Return the images per second of so many together; None when their memory ran out."""
        if self._device == "cpu":
            self.clear()  # with more side by side, each has fewer threads
        threads = max(1, self._cores // trials)
        while len(self._running) < trials:
            task = ProbeTask(study=self._study, settings=self._host.settings, device=self._device, threads=threads)
            self._running.append(_ProbeProcess(self._server, train_until_told, task, self._host))
        try:
            for training in self._running[self._steady :]:
                self._note(training.hear(Running))
                self._steady += 1
            for training in self._running:
                training.pipe.send("from")
            wait([self._host.stop.descriptor], min(max(_STEPS * self._step_seconds, _SHORTEST), _LONGEST))
            for training in self._running:
                training.pipe.send("until")
            return math.fsum(training.hear(Rate).images_per_second for training in self._running)
        except _OutOfMemory:
            return None

    def _note(self, running: Running) -> None:
        self._step_seconds = running.step_seconds
        if not self.trial_bytes:
            self.trial_bytes = running.bytes + (SLOT_BYTES if self._device == "cpu" else 0)
            self.free_bytes = running.free - (FORK_SERVER_BYTES if self._device == "cpu" else 0)

    def clear(self) -> None:
        """End all of them."""
        for training in self._running:
            training.close()
        self._running.clear()
        self._steady = 0


class _OutOfMemory(Exception):
    pass


class _ProbeProcess(Child):
    def __init__(
        self,
        server: ForkServer,
        function: Callable[[_Argument, Connection], None],
        argument: _Argument,
        host: Host,
    ) -> None:
        super().__init__(server, function, argument)
        self._stop = host.stop

    def hear(self, kind: type[_Answer]) -> _Answer:
        """Return the next message, which must be of this kind. Raises _OutOfMemory, Interrupted, or its own error."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            message: Any = next(self.messages(), None)
            if self._stop.received is not None:
                raise Interrupted("stopped while workers were measured; nothing has begun", self._stop.received)
            if isinstance(message, kind):
                return message
            if isinstance(message, NoMemory) or (message is None and self.ended and self.exit_code == -signal.SIGKILL):
                raise _OutOfMemory  # SIGKILL is the kernel's way when memory runs out
            if isinstance(message, IgkdError):
                raise message
            if message is None and self.ended:
                raise IgkdError("--workers auto: a training ended by itself; give a number instead")
            if time.monotonic() > deadline:
                raise IgkdError(f"--workers auto: a training said nothing for {_PATIENCE:g} s; give a number instead")
            wait([*self.waitables(), self._stop.descriptor], _LOOK_SECONDS)
