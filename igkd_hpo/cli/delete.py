"""`igkd-hpo delete`: a study, what is linked to it, and their files."""

import sys
from typing import Annotated

import typer
from typer import Option

from igkd_hpo.cli.arguments import NamedStudy, Storage, print_line
from igkd_hpo.errors import UsageError
from igkd_hpo.escaping import one_line
from igkd_hpo.words import byte_size


def delete(
    study: NamedStudy,
    yes: Annotated[bool, Option("--yes", help="Delete it without asking.")] = False,
    storage: Storage = None,
) -> None:
    """Delete a study that does not run: its trials, confirmation and ladder, their weights, logs and pictures.

    Images, teachers and maps stay, which other studies may share; clean removes what no study needs.

    Examples:
        igkd-hpo delete old-digits --yes
    """
    from igkd_hpo.api.removal import plan_removal, remove

    planned = plan_removal(study, storage=storage)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this would delete {planned.about}; nobody can be asked here, so add --yes")
        if not typer.confirm(f"delete {one_line(planned.about)}?", err=True):
            print_line("nothing was deleted", err=True)
            return
    size = remove(planned)
    print_line(f"deleted {planned.about} ({byte_size(size)}); `igkd-hpo clean` finds what else nothing needs", err=True)
