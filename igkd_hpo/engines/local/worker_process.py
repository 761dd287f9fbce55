"""A supervised worker's process, as whoever started it on its host sees it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.fork_server import AS_MODULE
from igkd_hpo.engines.local.worker_main import WorkerTask
from igkd_hpo.files import make_folder
from igkd_hpo.search.identity import ProcessIdentity, identify


class WorkerProcess:
    """A worker that was started; what it writes for people goes to the end of its log.

    Its standard input stays open: the worker ends when whoever started it does, however that ends.
    """

    def __init__(self, task: WorkerTask, log: Path) -> None:
        make_folder(log.parent)
        with log.open("ab") as written:
            self._process = subprocess.Popen(
                [sys.executable, *AS_MODULE, "igkd_hpo.engines.local.worker_main"],
                stdin=subprocess.PIPE,  # its task; after that, its end tells the worker that we have gone
                stdout=subprocess.PIPE,
                stderr=written,
                pass_fds=[] if task.fork_server is None else [task.fork_server],
                start_new_session=True,  # a terminal's Ctrl-C comes to its starter alone, and workers end in order
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.events = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self.talks = True
        self._process.stdout.close()
        with suppress(BrokenPipeError), Connection(os.dup(self._process.stdin.fileno()), readable=False) as given:
            given.send(task)  # one that has ended already says how to whoever looks next

    @property
    def pid(self) -> int:
        """The process, which leads its own session."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, below 0 the signal that ended it; None while it runs."""
        return self._process.poll()

    def read(self) -> Iterator[Event]:
        """Yield what has arrived; when it has ended, `talks` is false after that."""
        while self.talks:
            try:
                if not self.events.poll():
                    return
                yield self.events.recv()
            except (EOFError, OSError):
                self.talks = False

    def ask_to_end(self) -> None:
        """Let it release its trial, and leave."""
        self._process.terminate()

    def end_by(self, seconds: float) -> ProcessIdentity | None:
        """Wait for its end; kill it after so long, and return then who was killed, who may hold a trial."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            identity = identify(self.pid)
            self.signal(signal.SIGKILL)
            self._process.wait()
            return identity
        return None

    def signal(self, number: signal.Signals) -> None:
        """Signal all of its session."""
        signal_session(self.pid, number)

    def close(self) -> None:
        """Let go of one that has ended, or let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.events.close()


def signal_session(leader: int, number: signal.Signals) -> None:
    """Signal all processes of a session that was started for one; a trial process leaves with its worker."""
    with suppress(ProcessLookupError):
        os.killpg(leader, number)
