"""Running a study's workers under the live view, for every command that does it."""

from contextlib import suppress
from typing import TYPE_CHECKING

from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.search.study import SearchStudy
    from igkd_hpo.service.signals import StopSignal


def supervise(
    found: "SearchStudy",
    settings: Settings,
    *,
    workers: int,
    device: str,
    stop: "StopSignal",
    show_best: bool = True,
) -> bool:
    """Run until every worker has left, or a signal came; False when a worker could not be kept alive."""
    from rich.console import Console

    from igkd_hpo.results.best import best_trial
    from igkd_hpo.service.live import LiveView
    from igkd_hpo.service.supervisor import Supervisor

    with LiveView(Console(stderr=True), found.n_trials, found.config.training.epochs) as view:

        def refresh() -> None:
            view.counts(found.counts(), found.n_trials)
            if show_best:
                with suppress(NoCompletedTrial):
                    best = best_trial(found)
                    view.best(best.validation_accuracy, best.number, best.control)

        supervisor = Supervisor(
            found,
            settings,
            workers=workers,
            device=device,
            stop=stop,
            on_event=view.event,
            on_message=view.message,
            on_refresh=refresh,
        )
        return supervisor.run()
