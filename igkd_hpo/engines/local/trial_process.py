"""One attempt as its worker sees it: a process forked from a server that has torch imported, and a pipe from it."""

import json
import multiprocessing
import signal
from collections.abc import Iterator
from typing import Any

from igkd_hpo.assets.host_memory import oom_kills
from igkd_hpo.engines.local.fork_server import fork_server
from igkd_hpo.search.identity import ProcessIdentity, identify
from igkd_hpo.trial.task import TrialTask

_KILL_SECONDS = 5.0  # SIGKILL needs milliseconds; a process in uninterruptible sleep must not hang its worker


class Attempt:
    """A trial process, from the moment that it is asked for; `close` ends it whatever it does.

    Raises:
        IgkdError: here and in `messages`: no process can be forked.
    """

    def __init__(self, task: TrialTask) -> None:
        self._oom_kills = oom_kills()
        self.pipe, child = multiprocessing.Pipe()
        self._process = fork_server().fork(task, [child.fileno()])
        child.close()
        self._open = True

    @property
    def identity(self) -> ProcessIdentity | None:
        """Of the process; None while it has not begun, and when it has already gone."""
        return identify(self._process.pid) if self._process.pid is not None and not self._process.ended else None

    def waitables(self) -> list[Any]:
        """What to wait on: the pipe while it is open, and the process while it lives."""
        return [*([self.pipe] if self._open else []), *self._process.waitables()]

    def messages(self) -> Iterator[dict[str, Any]]:
        """Everything that has arrived by now."""
        self._process.take_in()
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
        return not self._open and self._process.ended

    @property
    def killed_for_memory(self) -> bool:
        """Whether the process got SIGKILL while the kernel was killing for want of memory: very likely the same one."""
        return self._process.exit_code == -signal.SIGKILL and oom_kills() > self._oom_kills

    def how_it_ended(self) -> str:
        """The exit status in words."""
        code = self._process.exit_code
        if code is None:
            return "the trial process is gone, and so is the server that it was forked from"
        if code < 0:
            return f"the trial process was ended by {signal.Signals(-code).name}"
        return f"the trial process left with exit code {code}"

    def close(self) -> None:
        """End the process at once and let go of it; its checkpoint is whole at any moment."""
        self._process.close(_KILL_SECONDS)
        self.pipe.close()
        self._open = False
