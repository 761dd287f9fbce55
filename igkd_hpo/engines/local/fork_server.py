"""Start processes in hundredths of a second, forked from a server that imports torch once for a launch.

Whoever needs one first starts the server; the workers of a supervisor ask the same one. Nobody else can: the socket
has no name, and is passed on to children alone. A request waits in it while the server starts, or starts again.
"""

import atexit
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from igkd_hpo.errors import IgkdError

_SHORT_LIFE_SECONDS = 60.0
_MOST_SHORT_LIVES = 5  # in a row: torch cannot be imported, or something kills the server again and again
_MOST_REPLY_BYTES = 64

_Argument = TypeVar("_Argument")


AS_MODULE = ("-P", "-m")
"""Flags to start a module of ours with: `-P` keeps the working directory off the path, where somebody's own optuna.py,
say, would be imported in place of the package."""


class ForkServer:
    """A server of one's own, or that of the supervisor.

    Args:
        inherited: descriptor of the supervisor's, who keeps it running; None for one of our own.
    """

    def __init__(self, inherited: int | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0.0
        self._short_lives = 0
        self._answers: socket.socket | None = None
        if inherited is not None:
            self._requests = socket.socket(fileno=inherited)
            return
        # One message is one request, whoever sends it; both ends stay here, so that nothing is lost with a server.
        self._requests, self._answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        """The server's process, which leads the session of all that it forks; None where it is not ours, or not up."""
        return None if self._process is None else self._process.pid

    @property
    def descriptor(self) -> int:
        """What a child needs to inherit."""
        return self._requests.fileno()

    def keep_running(self) -> None:
        """Begin to import torch, without waiting for it; the same again when the server has ended.

        Raises:
            IgkdError: it ended too often.
        """
        if self._answers is None or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            short = time.monotonic() - self._begun < _SHORT_LIFE_SECONDS
            self._short_lives = self._short_lives + 1 if short else 0
            if self._short_lives >= _MOST_SHORT_LIVES:
                raise IgkdError(
                    f"the process that trials are forked from ended {self._short_lives} times in a row, the last time "
                    f"with exit code {self._process.returncode}; does `python -c 'import torch, torchvision'` work?"
                )
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *AS_MODULE, "igkd_hpo.engines.local.fork_server_main", str(self._answers.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[self._answers.fileno()],
            # NumPy's OpenBLAS would start a thread per core, which a fork does not survive; torch has its own setting.
            # OpenMP's threads shall sleep while they wait: see cli/app.py.
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} | os.environ,
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )

    def fork(
        self, function: Callable[[_Argument, Connection], None], argument: _Argument, connection: Connection
    ) -> "Forked":
        """Ask for a process that calls the function, and return it before it begins.

        Args:
            function: of a module, which the process imports.
            argument: that pickles.
            connection: the function's end of a pipe; the caller's own copy may be closed.

        Raises:
            IgkdError: as `keep_running`.
        """
        self.keep_running()
        return Forked(self, self._requests, pickle.dumps((function, argument)), [connection.fileno()])

    def stop(self) -> None:
        """End our own server until it is asked again; what it forked goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End our own server for good, or let go of an inherited one."""
        self.stop()
        self._requests.close()
        if self._answers is not None:
            self._answers.close()


class Forked:
    """A process that the server was asked for. It begins when the server gets to it.

    Args:
        server: that is asked.
        requests: its socket.
        request: pickled.
        descriptors: for the process; the caller's own may be closed.
    """

    def __init__(self, server: ForkServer, requests: socket.socket, request: bytes, descriptors: Sequence[int]) -> None:
        self._server = server
        self._requests = requests
        self._reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reply.setblocking(False)
        self._unsent: tuple[bytes, list[int]] | None = (request, [theirs.detach(), *map(os.dup, descriptors)])
        self._handle: int | None = None  # the server opened it before it could reap the process
        self.pid: int | None = None
        self.exit_code: int | None = None  # below 0: the signal; None also when the server died before it knew
        self._ask()

    def waitables(self) -> list[Any]:
        """What becomes readable when there is something to take in."""
        if self._reply.fileno() >= 0:
            return [self._reply]
        return [self._handle] if self._handle is not None and not self.ended else []

    def take_in(self) -> None:
        """Read what the server says, and see to it that it can. Raises IgkdError as `ForkServer.keep_running`."""
        self._ask()
        if self.pid is None:
            self._server.keep_running()
        self._hear()

    @property
    def ended(self) -> bool:
        """Whether it has gone, or will never be, because its server died with the request."""
        if self._reply.fileno() >= 0:
            return False  # the server will say how it ended
        return self._handle is None or bool(select.select([self._handle], [], [], 0)[0])

    def send_signal(self, number: signal.Signals) -> None:
        """To it alone, never to a later process with its id; nothing where there is none yet or any more."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def close(self, patience: float) -> None:
        """End it at once, whatever it does, and let go of it; also of a request that is still waiting.

        Args:
            patience: seconds to wait for its end.
        """
        self._hear()
        self.send_signal(signal.SIGKILL)
        if self._handle is not None:
            select.select([self._handle], [], [], patience)
            os.close(self._handle)
            self._handle = None
        self._reply.close()  # the server ends what it forks from now on for nobody
        if self._unsent is not None:
            self._let_go(self._unsent[1])

    def _ask(self) -> None:
        if self._unsent is None:
            return
        request, descriptors = self._unsent
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors))
        with suppress(BlockingIOError):  # a server that still starts lets ten requests wait; later, then
            self._requests.sendmsg([request], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            self._let_go(descriptors)

    def _hear(self) -> None:
        while self._reply.fileno() >= 0:
            try:
                said, handles, *_ = socket.recv_fds(self._reply, _MOST_REPLY_BYTES, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                said, handles = b"", []
            if handles:
                self._handle, self.pid = handles[0], int(said)
            elif said:
                self.exit_code = int(said)
            else:
                self._reply.close()

    def _let_go(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        self._unsent = None
