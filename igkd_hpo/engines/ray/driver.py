"""The driver, which talks to Ray for an engine, as the engine sees it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from igkd_hpo.engines.local.fork_server import AS_MODULE
from igkd_hpo.engines.ray.driver_main import missing_token
from igkd_hpo.engines.ray.messages import Cluster, Connect, Stop, Stopped
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, UsageError
from igkd_hpo.files import make_folder

_LISTEN_SECONDS = 5.0
_CONNECT_SECONDS = 60.0  # a cluster that is there answers in four, under load in thirty; Ray gives up after 120
_STOP_SECONDS = 40.0
_LEAVE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_REFUSED = b"InvalidAuthToken"


class Driver:
    """The process of `driver_main`; what Ray writes to standard error is in `log`.

    Args:
        stop: ends the wait for an answer.
    """

    def __init__(self, address: str, log: Path, stop: StopSignal) -> None:
        _require_listener(address)
        make_folder(log.parent)
        self._address = address
        self._log = log
        self._stop = stop
        with log.open("ab") as written:
            self._said_before = written.tell()
            self._process = subprocess.Popen(
                [sys.executable, *AS_MODULE, "igkd_hpo.engines.ray.driver_main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                start_new_session=True,  # Ctrl-C is the engine's to handle
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._answers = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()

    def connect(self) -> None:
        """Reach the cluster, and describe it in `cluster`. Raises UsageError, which says why not; Interrupted."""
        self.cluster: Cluster = self.ask(Connect(self._address), seconds=_CONNECT_SECONDS)

    def ask(self, question: object, *, seconds: float | None = None) -> Any:
        """Return the answer. Raises it where it is an IgkdError; Interrupted."""
        self.send(question)
        begun = time.monotonic()
        while not self._answers.poll():
            wait([self._answers, self._stop.descriptor], _LOOK_SECONDS)
            if self._stop.received is not None:
                raise Interrupted("stopped before anything ran; run again", self._stop.received)
            if seconds is not None and _REFUSED in self._noise():
                raise missing_token(self._address)
            if seconds is not None and time.monotonic() - begun > seconds:
                raise UsageError(
                    f"no Ray cluster answers at --address {self._address} within {seconds:.0f} s; start one there, or "
                    "give the address that `ray start --head` printed"
                )
        try:
            answer = self._answers.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(answer, UsageError) and _REFUSED in self._noise():
            raise missing_token(self._address)
        if isinstance(answer, IgkdError):
            raise answer
        return answer

    def messages(self) -> Iterator[object]:
        """Wait a moment, and yield what has arrived. Raises IgkdError: the cluster is gone."""
        wait([self._answers, self._stop.descriptor], _LOOK_SECONDS)
        try:
            while self._answers.poll():
                yield self._answers.recv()
        except (EOFError, OSError):
            raise self._gone() from None

    def stop(self) -> Iterator[object]:
        """Let the workers end in order, and yield what arrives until they have."""
        with suppress(IgkdError, OSError, EOFError):
            self.send(Stop())
            deadline = time.monotonic() + _STOP_SECONDS
            while self._answers.poll(max(0.0, deadline - time.monotonic())):
                yield (message := self._answers.recv())
                if isinstance(message, Stopped):
                    return

    def send(self, question: object) -> None:
        """Send it. Raises IgkdError: the cluster is gone."""
        try:
            self._questions.send(question)
        except OSError:
            raise self._gone() from None

    def close(self) -> None:
        """Let it leave, and Ray's workers with it; one that does not is killed."""
        self._questions.close()
        self._answers.close()
        try:
            self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _noise(self) -> bytes:
        with self._log.open("rb") as file:
            file.seek(self._said_before)
            return file.read()

    def _gone(self) -> IgkdError:
        return IgkdError(
            f"the Ray cluster at --address {self._address} is gone (see {self._log}); the study is whole: the same "
            "launch goes on, on another cluster or on one machine"
        )


def _require_listener(address: str) -> None:
    """Raise UsageError where nobody listens at HOST:PORT: Ray would look for two minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), _LISTEN_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster is at --address {address} ({error}); start one with `ray start --head`, or give the "
            "address that it printed"
        ) from None
