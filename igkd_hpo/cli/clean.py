"""`igkd-hpo clean`: what runs left behind, and no study needs."""

from pathlib import Path
from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import Storage, print_line
from igkd_hpo.words import byte_size, counted, duration


def clean(
    storage: Storage = None,
    yes: Annotated[bool, Option("--yes", help="Remove it.")] = False,
) -> None:
    """Show what below storage/ no study in the database needs, and how large it is; with --yes remove it.

    What changed or was opened within the last hour stays: it may belong to a study that is still in the making.

    Examples:
        igkd-hpo clean
        igkd-hpo clean --yes
    """
    from igkd_hpo.api.clean import clean as run

    found = run(storage=storage, remove=yes)
    for leftover in found.old:
        path = leftover.path.relative_to(Path.cwd())
        print_line(f"{byte_size(leftover.size):>10}  {path}  {leftover.why}")
    total = byte_size(sum(leftover.size for leftover in found.old))
    then = "removed" if yes else "nothing was removed; --yes removes them"
    if found.old:
        print_line(f"{counted(len(found.old), 'leftover')}, {total}; {then}", err=True)
    if found.young:
        more = f"{counted(len(found.young), 'more leftover' if found.old else 'leftover')} changed within the last hour"
        size = byte_size(sum(leftover.size for leftover in found.young))
        print_line(f"{more}, {size}; wait {duration(found.seconds)}, then clean again", err=True)
    if not (found.old or found.young):
        print_line("nothing is left over", err=True)
