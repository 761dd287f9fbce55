"""`igkd-hpo stop`: no new trials of a study, on no host."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import Storage, existing_study
from igkd_hpo.errors import ExitCode
from igkd_hpo.settings import Settings, host_name

if TYPE_CHECKING:
    from igkd_hpo.search.lease import Leases

_PATIENCE_SECONDS = 15.0  # workers hear of it within 4 s, and end a trial process within one
_LOOK_SECONDS = 0.2


def stop(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or file of an existing study.")],
    now: Annotated[bool, typer.Option("--now", help="Also end the trials that run; they can be resumed.")] = False,
    storage: Storage = None,
) -> None:
    """Stop a study on all hosts: no new trials. `launch` goes on with it.

    Example: igkd-hpo stop digits --now
    """
    from igkd_hpo.search.lease import Leases

    settings = Settings.resolve(storage_url=storage)
    found = existing_study(study, settings)
    counts, total = found.counts(), found.n_trials
    if counts.finished >= total:
        typer.echo(f"study {found.name} is finished; there is nothing to stop", err=True)
        return
    found.stop(f"igkd-hpo stop on {host_name()}; igkd-hpo launch goes on", now=now)
    leases = Leases(found, lease_seconds=settings.lease_seconds)
    running = len(leases.held())
    if now and not _wait_for_all(leases):
        left = ", ".join(f"{lease.worker} on {lease.process.host}" for lease in leases.held())
        typer.echo(
            f"study {found.name}: stopped, but these workers have not answered and still hold trials: {left}; the next "
            f"launch frees them {settings.lease_seconds:g} s after their last sign of life",
            err=True,
        )
        raise typer.Exit(ExitCode.FAILED)
    counts = found.counts()
    fate = "went back to the queue" if now else "run to the end; --now ends them too"
    were = f"; {running} trial{'s' if running > 1 else ''} {fate}" if running else ""
    typer.echo(f"study {found.name}: stopped with {counts.finished} of {total} trials finished{were}", err=True)


def _wait_for_all(leases: "Leases") -> bool:
    """Until nobody holds a trial any more; False when that took too long."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while leases.held():
        if time.monotonic() > deadline:
            return False
        leases.reap()
        time.sleep(_LOOK_SECONDS)
    return True
