"""`igkd-hpo rename`: another name for a study."""

from typing import Annotated

from typer import Argument

from igkd_hpo.cli.arguments import NamedStudy, Storage, print_line


def rename(
    study: NamedStudy,
    name: Annotated[str, Argument(metavar="NAME", help="The new name: letters, digits, dots, dashes, underscores.")],
    storage: Storage = None,
) -> None:
    """Give a study that does not run another name; trials, weights, logs and confirmation stay with it.

    Examples:
        igkd-hpo rename digits old-digits
    """
    from igkd_hpo.api.removal import rename as run

    run(study, name, storage=storage)
    print_line(f"{study} is {name} now; launch it by that name, and write `name: {name}` in its study file", err=True)
