"""A forked process that calls one function, and the pipe to it."""

import multiprocessing
import os
import pickle
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from igkd_hpo.assets.host_memory import oom_kills
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.search.identity import ProcessIdentity, identify

_KILL_SECONDS = 5.0  # SIGKILL needs milliseconds; a process in uninterruptible sleep must not hang its parent
_MOST_REPLY_BYTES = 64

_Argument = TypeVar("_Argument")


class Child:
    """A process that a fork server was asked for; it begins when the server gets to it, and `close` ends it.

    Args:
        function: of a module, which the process imports; gets the argument and its end of the pipe.
        argument: that pickles, as must what comes through the pipe.

    Raises:
        IgkdError: here and in `messages`: no process can be forked.
    """

    exit_code: int | None = None
    """Below 0: the signal that ended it; None while it runs, and when its server died before it knew."""

    def __init__(
        self, server: ForkServer, function: Callable[[_Argument, Connection], None], argument: _Argument
    ) -> None:
        server.keep_running()
        self._oom_kills = oom_kills()
        self._server = server
        self.pipe, theirs = multiprocessing.Pipe()
        self._reply, reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reply.setblocking(False)
        self._unsent: tuple[bytes, list[int]] | None
        self._unsent = pickle.dumps((function, argument)), [reply.detach(), os.dup(theirs.fileno())]
        theirs.close()
        self._pid: int | None = None
        self._handle: int | None = None  # the server opened it before it could reap the process
        self._open = True
        self._ask()

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process; None while it has not begun, and when it has already gone."""
        return None if self._pid is None or self._gone else identify(self._pid)

    @property
    def ended(self) -> bool:
        """Whether the process has gone, or will never be, and everything it said was read."""
        return not self._open and self._gone

    @property
    def killed_for_memory(self) -> bool:
        """Whether the process got SIGKILL while the kernel was killing for want of memory: very likely the same one."""
        return self.exit_code == -signal.SIGKILL and oom_kills() > self._oom_kills

    def waitables(self) -> list[Any]:
        """Return what becomes readable when there is something to take in."""
        pipe = [self.pipe] if self._open else []
        if self._reply.fileno() >= 0:
            return [*pipe, self._reply]
        return pipe if self._gone else [*pipe, self._handle]

    def messages(self) -> Iterator[Any]:
        """Yield everything that has arrived by now, and see to it that the server can serve us."""
        self._ask()
        if self._pid is None:
            self._server.keep_running()
        self._hear()
        while self._open:
            try:
                if not self.pipe.poll():
                    return
                yield self.pipe.recv()
            except (EOFError, OSError):
                self._open = False

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it alone, never a later process with its id; nothing where there is none yet or any more."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def describe_end(self) -> str:
        """Return in words how a trial ended in it."""
        if self.exit_code is None:
            return "the trial process is gone, and so is the server that it was forked from"
        if self.exit_code < 0:
            return f"the trial process was ended by {signal.Signals(-self.exit_code).name}"
        return f"the trial process left with exit code {self.exit_code}"

    def close(self) -> None:
        """End it at once, whatever it does, and let go of it; also of a request that is still waiting."""
        self._hear()
        self.send_signal(signal.SIGKILL)
        if self._handle is not None:
            select.select([self._handle], [], [], _KILL_SECONDS)
            os.close(self._handle)
            self._handle = None
        self._reply.close()  # the server ends what it forks from now on for nobody
        self._forget_request()
        self.pipe.close()
        self._open = False

    @property
    def _gone(self) -> bool:
        if self._reply.fileno() >= 0:
            return False  # the server will say how it ended
        return self._handle is None or bool(select.select([self._handle], [], [], 0)[0])

    def _ask(self) -> None:
        if self._unsent is not None and self._server.send(*self._unsent):
            self._forget_request()

    def _forget_request(self) -> None:
        for descriptor in self._unsent[1] if self._unsent else ():
            os.close(descriptor)
        self._unsent = None

    def _hear(self) -> None:
        while self._reply.fileno() >= 0:
            try:
                said, handles, *_ = socket.recv_fds(self._reply, _MOST_REPLY_BYTES, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                said, handles = b"", []
            if handles:
                self._handle, self._pid = handles[0], int(said)
            elif said:
                self.exit_code = int(said)
            else:
                self._reply.close()


def keep_quiet() -> None:
    """Let this process, which tries something, say nothing to people, leave no core file, and not end by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash may be what is looked for
    with open(os.devnull, "w") as nowhere:  # the C library's words on it too
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
