"""`igkd-hpo worker`: one worker, for one study or for all that are open."""

from functools import partial
from typing import Annotated

import typer
from typer import Option

from igkd_hpo.cli.arguments import AllowImport, Device, EveryStudy, Storage, print_line
from igkd_hpo.errors import ExitCode, UsageError


def worker(
    study: EveryStudy = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    threads: Annotated[int | None, Option("--threads", help="Threads of each trial; all cores if left out.")] = None,
) -> None:
    """Run one worker for a study, or for every open one in turn, from any host that reaches the storage.

    Examples:
        igkd-hpo worker digits
        igkd-hpo worker --storage postgresql+psycopg://user@host/studies
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads} is too few; give 1 or more")

    from igkd_hpo.api.source import settings_here
    from igkd_hpo.api.worker import run_worker
    from igkd_hpo.search.lease import Idle

    say = partial(print_line, err=True)
    served, ended = run_worker(study, settings_here(storage, allow_import or ()), device, threads=threads, say=say)
    if ended is Idle.STOPPED:
        say("the study is stopped; igkd-hpo status says why")
        raise typer.Exit(ExitCode.FAILED)
    name, trials = served.name, f"{served.counts.finished} of {served.n_trials} trials"
    say(f"study {name} is finished, {trials}; `igkd-hpo best {name}` shows what it found")
