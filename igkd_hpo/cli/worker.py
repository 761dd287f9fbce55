"""`igkd-hpo worker`: one worker, for one study or for all that are open."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, Device, EveryStudy, Storage
from igkd_hpo.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from igkd_hpo.engines.events import Event


def worker(
    study: EveryStudy = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of each trial; all cores if left out.")
    ] = None,
) -> None:
    """Run one worker for a study, or for every open one in turn, from any host that reaches the storage.

    Examples:
        igkd-hpo worker digits
        igkd-hpo worker --storage postgresql+psycopg://user@host/studies
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads} is too few; give 1 or more")

    from igkd_hpo.api import worker as api
    from igkd_hpo.search.lease import Idle

    found, ended = api.run_worker(
        study,
        storage=storage,
        device=device,
        allow_import=allow_import or (),
        threads=threads or len(os.sched_getaffinity(0)),
        on_event=_tell,
        on_message=lambda text: typer.echo(text, err=True),
    )
    if ended is Idle.STOPPED:
        typer.echo("the study is stopped; igkd-hpo status says why", err=True)
        raise typer.Exit(ExitCode.FAILED)
    typer.echo(
        f"study {found.name} is finished, {found.counts.finished} of {found.n_trials} trials; "
        f"`igkd-hpo best {found.name}` shows what it found",
        err=True,
    )


def _tell(study: str, event: "Event") -> None:
    if event.kind not in {"alive", "waiting"}:
        typer.echo((f"{study}: " if study else "") + event.for_people(), err=True)
