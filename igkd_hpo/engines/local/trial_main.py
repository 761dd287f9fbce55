"""The main function of a trial process, which trains and tells its worker through a pipe; it talks to no database.

It is forked from a server that has imported torch and nothing more: no connection, no thread, no CUDA call. When the
worker's end of the pipe closes, it leaves. This module itself imports no torch: the worker names its function.
"""

import logging
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from igkd_hpo.engines.pipe_reporter import PipeReporter
from igkd_hpo.escaping import LineFormatter, escape_diagnostics
from igkd_hpo.files import make_folder
from igkd_hpo.trial.task import AttemptTask


def run_trial(task: AttemptTask, pipe: Connection) -> None:
    """Run an attempt at a trial in this process; what it prints goes into its log."""
    import torch

    from igkd_hpo.distillation.heap import keep_freed_memory
    from igkd_hpo.trial.attempt import attempt

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _write_into(task.log)
    threading.Thread(target=_leave_with_worker, args=(pipe,), daemon=True).start()
    torch.set_num_threads(task.threads)
    keep_freed_memory()
    try:
        attempt(task, PipeReporter(pipe))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)


def _write_into(log: "os.PathLike[str]") -> None:
    make_folder(Path(log).parent)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    escape_diagnostics()


def _leave_with_worker(pipe: Connection) -> None:
    """Leave when the pipe becomes readable: the worker never writes to it, so it is gone."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
