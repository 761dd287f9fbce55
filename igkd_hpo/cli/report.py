"""`igkd-hpo report`: a study as one page."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from igkd_hpo.cli.arguments import ExistingStudy, Storage, print_line
from igkd_hpo.errors import ExitCode


def report(
    study: ExistingStudy = None,
    output: Annotated[Path, Option("-o", "--output", help="Where to write it.")] = Path("report.html"),
    storage: Storage = None,
) -> None:
    """Write one HTML page with the answer, its pictures and where they come from; it needs no network.

    Examples:
        igkd-hpo report digits -o report.html
    """
    from igkd_hpo.api.study import open_study

    page = open_study(study, storage=storage).report(output)
    if page.replaced:
        print_line(f"{page.path} was there before, and is replaced", err=True)
    print_line(page.path)
    if not page.completed:
        print_line(f"study {page.study} has no completed trial yet, and the page says so", err=True)
        raise typer.Exit(ExitCode.NO_COMPLETED_TRIAL)
