"""`igkd-hpo stop`: no new trials of a study, on no host."""

from typing import Annotated

import typer

from igkd_hpo.cli.arguments import NamedStudy, Storage


def stop(
    study: NamedStudy,
    now: Annotated[bool, typer.Option("--now", help="Also end the trials that run; they can be resumed.")] = False,
    storage: Storage = None,
) -> None:
    """Stop a study on all hosts: no new trials. `launch` goes on with it.

    Examples:
        igkd-hpo stop digits
        igkd-hpo stop digits --now
    """
    from igkd_hpo.api.study import open_study

    found = open_study(study, storage=storage)
    if found.counts.finished >= found.n_trials:
        typer.echo(f"study {found.name} is finished; there is nothing to stop", err=True)
        return
    running = found.stop(now=now)
    fate = "went back to the queue" if now else "run to the end; --now ends them too"
    were = f"; {running} trial{'s' if running > 1 else ''} {fate}" if running else ""
    typer.echo(
        f"study {found.name}: stopped with {found.counts.finished} of {found.n_trials} trials finished{were}", err=True
    )
