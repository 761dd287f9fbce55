"""`igkd-hpo clean`: what runs left behind, and no study needs."""

from pathlib import Path
from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import Storage, print_line
from igkd_hpo.words import byte_size


def clean(
    storage: Storage = None,
    yes: Annotated[bool, Option("--yes", help="Remove it.")] = False,
) -> None:
    """Show what below storage/ no study in the database needs, and how large it is; with --yes remove it.

    Examples:
        igkd-hpo clean
        igkd-hpo clean --yes
    """
    from igkd_hpo.api.clean import clean as run

    found = run(storage=storage, remove=yes)
    for leftover in found:
        path = leftover.path.relative_to(Path.cwd())
        print_line(f"{byte_size(leftover.size):>10}  {path}  {leftover.why}")
    total = byte_size(sum(leftover.size for leftover in found))
    then = "removed" if yes else "nothing was removed; --yes removes them"
    print_line(f"{len(found)} leftovers, {total}; {then}" if found else "nothing is left over", err=True)
