"""What the other processes of a test do. Preloaded by the fork server, so that they begin at the same time."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Barrier, Event

import alembic.command  # noqa: F401 - what Optuna and SQLAlchemy import late would be imported in every process
import psycopg  # noqa: F401
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401
from sqlalchemy import event as engine_event

from igkd_hpo.config.reading import study_from_json
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Verdict, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open, open_study


def fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def join_all(processes: Sequence[ForkServerProcess]) -> list[int | None]:
    """Exit codes; a minute after the first join they would be None."""
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def open_and_create(url: str, study: str, ready: Barrier) -> None:
    """Open the database, empty or not, and create the study or open it, at the same instant as the others."""
    ready.wait()
    create_or_open(open_storage(url, create=True), study_from_json(study, source="test"), n_trials=None, pins=None)


def work(url: str, study: str, name: str, die_in_trial: int | None, claimed: Event) -> None:
    """Claim, report and complete until the study is finished.

    Args:
        die_in_trial: the claim to be killed in, from 1; None for a worker that lives.
        claimed: set by the worker that dies once it holds that trial. The others begin then: they cannot finish the
            study before it got so far.
    """
    leases = Leases(open_study(open_storage(url, create=False), study))
    worker = Worker(name=name, process=this_process())
    claims = 0
    if die_in_trial is None:
        claimed.wait()
    while True:
        claim = leases.claim(worker)
        if isinstance(claim, Claim):
            claims += 1
            assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
            if claims == die_in_trial:
                claimed.set()
                os.kill(os.getpid(), signal.SIGKILL)
            assert leases.complete(claim, 0.5, {"by": name})
        elif claim is Idle.WAIT:
            time.sleep(0.02)  # others hold the last trials
        else:
            return


def die_in_claim(url: str, study: str, statement: int) -> None:
    """Be killed before the given statement of a claim, counted from 1."""
    storage = open_storage(url, create=False)
    leases = Leases(open_study(storage, study))
    count = 0

    def die(*_: object) -> None:
        nonlocal count
        count += 1
        if count == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    engine_event.listen(storage.engine, "before_cursor_execute", die)
    leases.claim(Worker(name="doomed", process=this_process()))
