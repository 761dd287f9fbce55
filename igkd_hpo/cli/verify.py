"""`igkd-hpo verify`: train a bundle's study once more and compare."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, print_json, print_line
from igkd_hpo.errors import ExitCode
from igkd_hpo.files import user_path
from igkd_hpo.words import percent


def verify(
    bundle: Annotated[Path, Argument(metavar="BUNDLE", help="The folder that export --bundle wrote.")],
    seed: Annotated[int | None, Option("--seed", min=0, help="Instead of the one that the bundle names.")] = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Folder for what is trained.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a bundle is whole, train its study once, and say whether it is as accurate as the bundle claims.

    Examples:
        igkd-hpo verify digits-bundle
    """
    from igkd_hpo.api.source import settings_here
    from igkd_hpo.bundle.verification import verify_bundle
    from igkd_hpo.distillation.metrics import measured
    from igkd_hpo.terminal.progress import make_progress

    settings = settings_here(allow_import=allow_import or ())
    with make_progress() as progress:
        folder = output and user_path(output)
        result = verify_bundle(user_path(bundle), settings, seed=seed, device=device, output=folder, progress=progress)
    expected = result.expected
    if as_json:
        print_json(asdict(result) | {"expected": expected.model_dump()})
    else:
        reached = f"seed {result.seed} reached {measured(result.validation_accuracy, expected.metric)} on validation"
        interval = f"{percent(expected.low)} to {percent(expected.high)}"
        print_line(f"{'verified' if result.inside else 'not verified'}: {reached}; {interval} was expected")
        print_line(f"  {measured(expected.validation_accuracy, expected.metric)} and {expected.basis}")
    if not result.inside:
        raise typer.Exit(ExitCode.FAILED)
