"""`igkd-hpo verify`: train a bundle's study once more and compare."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, print_json
from igkd_hpo.errors import ExitCode
from igkd_hpo.words import percent


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that export --bundle wrote.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the one that the bundle names.")] = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for what is trained.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a bundle is whole, train its study once, and say whether the accuracy is what it claims.

    Examples:
        igkd-hpo verify digits-bundle
    """
    from igkd_hpo.api.source import settings_here
    from igkd_hpo.bundle.verification import verify_bundle
    from igkd_hpo.terminal.progress import make_progress

    settings = settings_here(allow_import=allow_import or ())
    with make_progress() as progress:
        found = verify_bundle(bundle, settings, seed=seed, device=device, output=output, progress=progress)
    expected = found.expected
    low, high = percent(expected.low), percent(expected.high)
    if as_json:
        print_json(asdict(found) | {"expected": expected.model_dump()})
    else:
        typer.echo(
            f"{'verified' if found.inside else 'not verified'}: seed {found.seed} reached "
            f"{percent(found.validation_accuracy)} on validation; {low} to {high} was expected"
        )
        typer.echo(f"  {percent(expected.validation_accuracy)} and {expected.basis}")
    if not found.inside:
        raise typer.Exit(ExitCode.FAILED)
