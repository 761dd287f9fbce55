"""`igkd-hpo train`: one student from a study file without ranges."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, print_json
from igkd_hpo.cli.progress import make_progress
from igkd_hpo.config.reading import read_study
from igkd_hpo.settings import Settings


def train(
    study: Annotated[Path, typer.Argument(metavar="FILE", help="A study file without ranges, such as best.yaml.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the file's training.seed.")] = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    test: Annotated[bool, typer.Option("--test", help="Also read the test split, once, at the end.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for metrics.json and student.pt.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train one student from a file with no ranges: metrics and checkpoint.

    Example: igkd-hpo train best.yaml --seed 1
    """
    settings = Settings.resolve(allow_import=tuple(allow_import or ()))
    config = read_study(study)

    from igkd_hpo.results.train import train_student

    with make_progress() as progress:
        trained = train_student(config, settings, seed=seed, device=device, test=test, output=output, progress=progress)
    if as_json:
        print_json(asdict(trained))
        return
    tested = "" if trained.test_accuracy is None else f", {trained.test_accuracy:.2%} on test"
    typer.echo(f"{trained.validation_accuracy:.2%} on validation{tested}; in {trained.folder}")
