"""Running a study's workers under the live view, for everything that does it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console

from igkd_hpo.config.study import Study
from igkd_hpo.engines.local.fork_server import fork_server
from igkd_hpo.engines.local.probe import Probe, measure_workers
from igkd_hpo.engines.local.supervisor import Supervisor
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import Interrupted
from igkd_hpo.search.status import study_status
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.live import LiveView
from igkd_hpo.terminal.progress import tell


@contextmanager
def own_fork_server() -> Iterator[None]:
    """The server that processes are forked from ends with this: its user may live on, a notebook for example."""
    try:
        yield
    finally:
        fork_server().stop()


def measure(config: Study, settings: Settings, *, device: str, stop: StopSignal) -> Probe:
    """How many workers pay, from some seconds of training. Raises Interrupted when a signal came before that."""
    measured = measure_workers(config, settings, device=device, stop=stop)
    if measured is None:
        raise Interrupted("stopped while workers were measured; nothing has begun", stop.received or signal.SIGINT)
    return measured


def supervise(
    found: SearchStudy,
    settings: Settings,
    *,
    workers: int | Literal["auto"],
    device: str,
    stop: StopSignal,
    console: Console,
) -> bool:
    """Run until every worker has left, or a signal came; False when a worker could not be kept alive.

    Raises:
        Interrupted: as `measure`, where workers are measured.
    """
    if workers == "auto":
        measured = measure(found.config, settings, device=device, stop=stop)
        tell(console, str(measured))
        workers = measured.workers

    with LiveView(console, study_status(found), workers=workers) as view:
        supervisor = Supervisor(
            found,
            settings,
            workers=workers,
            device=device,
            stop=stop,
            on_event=view.event,
            on_message=view.message,
            on_refresh=lambda: view.refresh(study_status(found)),
        )
        return supervisor.run()
