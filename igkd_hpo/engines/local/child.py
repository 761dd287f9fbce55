"""A forked process that calls one function, and the pipe to it."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from igkd_hpo.assets.host_memory import oom_kills
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.search.identity import ProcessIdentity, identify

_KILL_SECONDS = 5.0  # SIGKILL needs milliseconds; a process in uninterruptible sleep must not hang its parent

_Argument = TypeVar("_Argument")


class Child:
    """A process, from the moment that it is asked for; `close` ends it whatever it does.

    Args:
        function: gets the argument and its end of the pipe, through which it sends objects that pickle.

    Raises:
        IgkdError: here and in `messages`: no process can be forked.
    """

    def __init__(
        self, server: ForkServer, function: Callable[[_Argument, Connection], None], argument: _Argument
    ) -> None:
        self._oom_kills = oom_kills()
        self.pipe, theirs = multiprocessing.Pipe()
        try:
            self._process = server.fork(function, argument, theirs)
        except BaseException:
            self.pipe.close()
            raise
        finally:
            theirs.close()
        self._open = True

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process; None while it has not begun, and when it has already gone."""
        return identify(self._process.pid) if self._process.pid is not None and not self._process.ended else None

    @property
    def exit_code(self) -> int | None:
        """Below 0: the signal that ended it; None while it runs, and when its server died before it knew."""
        return self._process.exit_code

    @property
    def ended(self) -> bool:
        """Whether the process has gone and everything it said was read."""
        return not self._open and self._process.ended

    @property
    def killed_for_memory(self) -> bool:
        """Whether the process got SIGKILL while the kernel was killing for want of memory: very likely the same one."""
        return self._process.exit_code == -signal.SIGKILL and oom_kills() > self._oom_kills

    def waitables(self) -> list[Any]:
        """Return what to wait on: the pipe while it is open, and the process while it lives."""
        return [*([self.pipe] if self._open else []), *self._process.waitables()]

    def messages(self) -> Iterator[Any]:
        """Yield everything that has arrived by now."""
        self._process.take_in()
        while self._open:
            try:
                if not self.pipe.poll():
                    return
                yield self.pipe.recv()
            except (EOFError, OSError):
                self._open = False

    def terminate(self) -> None:
        """Ask it to end; nothing where there is none yet or any more."""
        self._process.send_signal(signal.SIGTERM)

    def describe_end(self, what: str) -> str:
        """Return in words how it ended, as a sentence about `what`."""
        code = self._process.exit_code
        if code is None:
            return f"{what} is gone, and so is the server that it was forked from"
        if code < 0:
            return f"{what} was ended by {signal.Signals(-code).name}"
        return f"{what} left with exit code {code}"

    def close(self) -> None:
        """End the process at once and let go of it."""
        self._process.close(_KILL_SECONDS)
        self.pipe.close()
        self._open = False
