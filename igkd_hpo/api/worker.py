"""Run one worker for one study of a database, or for every open one."""

import os
import signal
from collections.abc import Callable
from functools import partial

from igkd_hpo.api.source import StudyLike, existing_study
from igkd_hpo.api.study import Study
from igkd_hpo.engines.engine import Host, prepare_existing
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.engine import LocalEngine
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.trial_process import start_trial
from igkd_hpo.engines.open_studies import OpenStudies
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.engines.worker import OneStudy, Source, work
from igkd_hpo.errors import Interrupted
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Idle, Worker
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.storage_url import is_server
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.progress import make_progress


def run_worker(
    study: StudyLike | None, settings: Settings, device: str, *, threads: int | None, say: Callable[[str], None]
) -> tuple[Study, Idle]:
    """Run one worker until nothing is left for it; its trials are processes of their own.

    Args:
        study: an existing one; None takes every open one in turn, without an end.
        device: as for `launch`.
        threads: of each trial; None means all cores.
        say: called with each line for people.

    Returns:
        The study, and why nothing is left.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the trial waits for another worker.
        UsageError: there is no such study.
        IgkdError: the assets cannot be made, or no process can be started here.
    """
    process = this_process()
    worker = Worker(name=f"{process.host}-{process.pid}", process=process)
    server = ForkServer()
    with LocalEngine(server) as engine, StopSignal() as stop:
        host = Host(settings=settings, device=device, stop=stop)

        def prepare(one: SearchStudy) -> None:
            with make_progress() as shown:
                prepare_existing(engine, one, host, shown)

        def tell(study_name: str, event: Event) -> None:
            if event.kind not in {"alive", "waiting"}:
                say((f"{study_name}: " if study_name and only is None else "") + event.for_people())

        only = None if study is None else existing_study(study, settings)
        server.keep_running()  # it imports torch while we look around
        source: Source
        if only is None:
            opened = open_storage_here(settings, create=is_server(settings.storage_url))
            source = OpenStudies(opened, settings, worker, prepare=prepare, on_message=say)
        else:
            prepare(only)
            source = OneStudy(study=only, settings=settings, worker=worker)
        ended = work(
            source,
            settings,
            Slot(number=0, device=device, threads=threads or len(os.sched_getaffinity(0))),
            start=partial(start_trial, server),
            stop=stop,
            on_event=tell,
        )
        if ended is None or only is None:
            raise Interrupted("stopped; what it held waits for another worker", stop.received or signal.SIGTERM)
        return Study(only, settings), ended
