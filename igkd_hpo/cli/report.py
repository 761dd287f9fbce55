"""`igkd-hpo report`: a study as one page."""

from pathlib import Path
from typing import Annotated

import typer

from igkd_hpo.cli.arguments import ExistingStudy, Storage, existing_study
from igkd_hpo.errors import ExitCode, UsageError
from igkd_hpo.settings import Settings


def report(
    study: ExistingStudy = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")] = Path("report.html"),
    storage: Storage = None,
) -> None:
    """Write one HTML page with the answer, its pictures and where they come from; it needs no network.

    Example: igkd-hpo report digits -o report.html
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file with -o, for example {output / 'report.html'}")
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}; make it, or give another place with -o")
    from igkd_hpo.config.writing import write_text
    from igkd_hpo.results.report.page import write_report
    from igkd_hpo.search.linked_study import parent_of

    settings = Settings.resolve(storage_url=storage)
    found = parent_of(existing_study(study, settings))
    page = write_report(found, settings)
    replaced = output.exists()
    try:
        write_text(output, page.html)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}; give another place with -o") from error
    if replaced:
        typer.echo(f"{output} was there before, and is replaced", err=True)
    typer.echo(output)
    if not page.completed:
        typer.echo(f"study {found.name} has no completed trial yet, and the page says so", err=True)
        raise typer.Exit(ExitCode.NO_COMPLETED_TRIAL)
