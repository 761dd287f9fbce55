"""A supervised worker's process: `python -m igkd_hpo.engines.local.worker_main`, with its task on standard input.

What happens goes to standard output, as events. Standard input ends when the supervisor does, however it ends;
the worker then releases its trial.
"""

import os
import signal
import sys
import threading
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import ExitCode, IgkdError
from igkd_hpo.settings import Settings


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """The argument of a supervised worker.

    Args:
        study: its name in the database.
        name: of the worker, for people.
        fork_server: descriptor of the supervisor's, which trials are forked from; None for one of its own.
    """

    study: str
    settings: Settings
    name: str
    slot: Slot
    fork_server: int | None


def main() -> int:
    """Work until no trial is left, or a signal comes; return the exit code."""
    with Connection(os.dup(sys.stdin.fileno()), writable=False) as given:
        task: WorkerTask = given.recv()
    try:
        with StopSignal() as stop:
            threading.Thread(target=_stop_with_supervisor, args=(stop,), daemon=True).start()
            _work(task, stop)
            return 0 if stop.received is None else ExitCode.after(stop.received)
    except IgkdError as error:
        sys.stderr.write(f"error: {error}\n")  # escaped, as every message of ours
        return int(error.exit_code)


def _work(task: WorkerTask, stop: StopSignal) -> None:
    from igkd_hpo.engines.local.trial_process import start_trial
    from igkd_hpo.engines.worker import OneStudy, work
    from igkd_hpo.search.identity import this_process
    from igkd_hpo.search.lease import Worker
    from igkd_hpo.search.storage import open_storage_here
    from igkd_hpo.search.study import open_study

    server = ForkServer(task.fork_server)
    server.keep_running()  # its own imports torch meanwhile
    events = Connection(os.dup(sys.stdout.fileno()), readable=False)
    study = open_study(open_storage_here(task.settings, create=False), task.study)
    worker = Worker(name=task.name, process=this_process())
    work(
        OneStudy(study=study, settings=task.settings, worker=worker),
        task.settings,
        task.slot,
        start=partial(start_trial, server),
        stop=stop,
        on_event=lambda _, event: events.send(event),
    )


def _stop_with_supervisor(stop: StopSignal) -> None:
    while os.read(sys.stdin.fileno(), 1):  # a buffered read would hold a lock that Python's own end needs
        pass
    stop.set(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
