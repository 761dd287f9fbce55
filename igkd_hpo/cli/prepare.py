"""`igkd-hpo prepare`: the assets alone."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, Storage, StudyFile, print_json, study_argument
from igkd_hpo.words import percent

if TYPE_CHECKING:
    from igkd_hpo.config.study import Study


def prepare(
    study: StudyFile = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
) -> None:
    """Make what a study needs before its first trial: images, teacher, logits and attribution maps.

    Examples:
        igkd-hpo prepare cifar10
        igkd-hpo prepare flowers.yaml --device cuda:1
    """
    from igkd_hpo.api.prepare import prepare as run
    from igkd_hpo.api.source import settings_here, study_to_run
    from igkd_hpo.distillation.heap import keep_freed_memory

    keep_freed_memory()
    config = study_to_run(study_argument(study), settings_here(storage, allow_import or ()))
    summary = run(config, storage=storage, device=device, allow_import=allow_import or ())
    if as_json:
        print_json(asdict(summary))
    else:
        typer.echo(
            f"{config.name}: ready; {_teachers(config)} right on {percent(summary.teacher_accuracy)} of validation"
        )


def _teachers(config: "Study") -> str:
    if config.teacher.folds:
        return f"each of {config.teacher.folds} teachers, on average, is"
    return "the teacher is" if config.teacher.members == 1 else f"{config.teacher.members} teachers together are"
