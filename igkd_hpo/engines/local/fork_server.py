"""Start processes in hundredths of a second, forked from a server that imports torch once for a launch.

Whoever needs one first starts the server; the workers of a supervisor ask the same one. Nobody else can: the socket
has no name, and is passed on to children alone. A request waits in it while the server starts, or starts again.
"""

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from igkd_hpo.errors import IgkdError

_SHORT_LIFE_SECONDS = 60.0
_MOST_SHORT_LIVES = 5  # in a row: torch cannot be imported, or something kills the server again and again

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
        self._modules: list[str] = []
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
        """The descriptor that a child must inherit to ask this server."""
        return self._requests.fileno()

    def keep_running(self) -> None:
        """Start the server, which imports torch, without waiting for it; start it again when it has ended.

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
            # NumPy's OpenBLAS would start a thread per core, or as many as somebody wants elsewhere, which a fork does
            # not survive; torch has its own setting. OpenMP's threads shall sleep while they wait: see cli/app.py.
            env={"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )
        for module in self._modules:
            self._ask_to_import(module)

    def import_too(self, module: str) -> None:
        """Let the server import a module, once, that what it forks from now on needs."""
        if module in self._modules:
            return
        self._modules.append(module)
        if self._process is not None:
            self._ask_to_import(module)

    def _ask_to_import(self, module: str) -> None:
        with suppress(BlockingIOError):  # each child then does it for itself
            self._requests.send(module.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def send(self, request: bytes, descriptors: Sequence[int]) -> bool:
        """Hand a request to the server, with copies of the descriptors; False while too many wait already."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors))
        try:  # a server that still starts lets ten requests wait
            self._requests.sendmsg([request], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """End our own server, or let go of an inherited one; what it forked goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._requests.close()
        if self._answers is not None:
            self._answers.close()
