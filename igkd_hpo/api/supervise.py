"""Run a study's workers under the live view."""

from typing import Literal

from igkd_hpo.api.slurm import Slurm
from igkd_hpo.engines.engine import Engine, Host, Watcher, run_slots
from igkd_hpo.engines.in_process import InProcessEngine
from igkd_hpo.engines.local.engine import LocalEngine
from igkd_hpo.engines.ray.engine import Ray
from igkd_hpo.errors import UsageError, near_or_all
from igkd_hpo.search.status import study_status
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.live import LiveView
from igkd_hpo.terminal.progress import tell

EngineLike = Literal["local", "in_process", "ray"] | Engine | Slurm
WorkerCount = int | Literal["auto"]


def open_engine(engine: EngineLike) -> Engine:
    """Make the engine of this name, or return the one that is given. Raises UsageError."""
    if isinstance(engine, Slurm):
        raise UsageError("only launch submits to Slurm; run this one on a host of yours, or as a job of its own")
    if not isinstance(engine, str):
        return engine
    engines: dict[str, type[Engine]] = {"local": LocalEngine, "in_process": InProcessEngine, "ray": Ray}
    if engine not in engines:
        raise UsageError(f"there is no engine {engine!r}{near_or_all(engine, engines)}")
    return engines[engine]()


def supervise(engine: Engine, study: SearchStudy, host: Host, *, workers: WorkerCount, console: Console) -> bool:
    """Run a study until every worker has left, or a signal came; False when a worker could not be kept alive.

    Raises:
        Interrupted: a signal came while workers were measured.
    """
    if workers == "auto":
        measured = engine.measure(study.config, host)
        tell(console, str(measured))
        workers = measured.workers

    with LiveView(console, study_status(study), workers=workers) as view:
        watcher = Watcher(
            on_event=view.event, on_message=view.message, on_refresh=lambda: view.refresh(study_status(study))
        )
        return run_slots(engine, study, host, watcher, slots=workers)
