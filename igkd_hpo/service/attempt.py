"""One attempt as its worker sees it: a process forked from a server that has torch imported, and a pipe from it."""

import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from igkd_hpo.search.identity import ProcessIdentity, identify
from igkd_hpo.service.host_memory import oom_kills
from igkd_hpo.service.trial_task import TrialTask

_KILL_SECONDS = 5.0  # SIGKILL needs milliseconds; a process in uninterruptible sleep must not hang its worker


def start_fork_server() -> None:
    """Begin to import torch in this process's fork server, without waiting for it."""
    # NumPy's OpenBLAS would start a thread per core in each trial process; torch has its own setting.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    multiprocessing.forkserver.set_forkserver_preload(["igkd_hpo.service.trial_process"])
    multiprocessing.forkserver.ensure_running()


def _run(task: TrialTask, pipe: Connection) -> None:
    from igkd_hpo.service.trial_process import run_trial_process

    run_trial_process(task, pipe)


class Attempt:
    """A running trial process; `close` ends it whatever it does."""

    def __init__(self, task: TrialTask) -> None:
        self._oom_kills = oom_kills()
        context = multiprocessing.get_context("forkserver")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=_run, args=(task, child), name=f"trial-{task.number}")
        self.process.start()
        child.close()
        self._open = True

    @property
    def identity(self) -> ProcessIdentity | None:
        """Of the process; None when it has already gone."""
        return identify(self.process.pid) if self.process.pid else None

    def waitables(self) -> list[Any]:
        """What to wait on: the pipe while it is open, then the process while it lives."""
        if self._open:
            return [self.pipe]
        return [self.process.sentinel] if self.process.is_alive() else []

    def messages(self) -> Iterator[dict[str, Any]]:
        """Everything that has arrived by now."""
        while self._open:
            try:
                if not self.pipe.poll():
                    return
                yield json.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                self._open = False

    @property
    def ended(self) -> bool:
        """Whether the process has gone and everything it said was read."""
        return not self._open and not self.process.is_alive()

    @property
    def killed_for_memory(self) -> bool:
        """Whether the process got SIGKILL while the kernel was killing for want of memory: very likely the same one."""
        return self.process.exitcode == -signal.SIGKILL and oom_kills() > self._oom_kills

    def how_it_ended(self) -> str:
        """The exit status in words."""
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"the trial process was ended by {signal.Signals(-code).name}"
        return f"the trial process left with exit code {code}"

    def close(self) -> None:
        """End the process at once and let go of it; its checkpoint is whole at any moment."""
        if self.process.is_alive():
            self.process.kill()
            self.process.join(_KILL_SECONDS)
        self.pipe.close()
        self._open = False
