"""`igkd-hpo train`: one student from a study file without ranges."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, print_json, print_line, study_parameter
from igkd_hpo.cli.completion import complete_study_file


def train(
    study: Annotated[
        str, study_parameter("A study file without ranges, such as best.yaml.", complete_study_file, metavar="FILE")
    ],
    seed: Annotated[int | None, Option("--seed", min=0, help="Instead of the file's training.seed.")] = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    test: Annotated[bool, Option("--test", help="Also read the test split, once, at the end.")] = False,
    output: Annotated[Path | None, Option("-o", "--output", help="Folder for metrics.json and student.pt.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train one student from a file with no ranges: metrics and checkpoint.

    Examples:
        igkd-hpo train best.yaml --seed 1
        igkd-hpo train best.yaml --test -o student
    """
    from igkd_hpo.api.train import train as run
    from igkd_hpo.distillation.heap import keep_freed_memory
    from igkd_hpo.distillation.metrics import measured

    keep_freed_memory()
    trained = run(study, seed=seed, device=device, allow_import=allow_import or (), test=test, output=output)
    if as_json:
        print_json(asdict(trained))
        return
    tested = "" if trained.test_accuracy is None else f", {measured(trained.test_accuracy, trained.metric)} on test"
    print_line(f"{measured(trained.validation_accuracy, trained.metric)} on validation{tested}; in {trained.folder}")
