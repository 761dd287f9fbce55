"""`igkd-hpo prepare`: the assets alone."""

import json
import os
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, Storage, StudyFile, print_json, study_argument
from igkd_hpo.errors import ExitCode, IgkdError

if TYPE_CHECKING:
    from igkd_hpo.config.study import Study


def prepare(
    study: StudyFile = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
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
    try:
        config = study_to_run(study_argument(study), settings_here(storage, allow_import or ()))
        summary = run(config, storage=storage, device=device, allow_import=allow_import or ())
    except (IgkdError, KeyboardInterrupt) as error:
        if not supervised:
            raise
        _answer(error)
    if supervised:
        typer.echo(json.dumps(asdict(summary)))
    elif as_json:
        print_json(asdict(summary))
    else:
        typer.echo(f"{config.name}: ready; {_teachers(config)} right on {summary.teacher_accuracy:.2%} of validation")


def _answer(error: IgkdError | KeyboardInterrupt) -> NoReturn:
    """Tell the process that started this one, which tells people."""
    from igkd_hpo.engines.local.preparation import error_line

    if isinstance(error, KeyboardInterrupt):
        raise typer.Exit(ExitCode.INTERRUPTED)
    if os.environ.get("IGKD_HPO_DEBUG"):
        traceback.print_exception(error)
    typer.echo(error_line(error))
    raise typer.Exit(error.exit_code)


def _teachers(config: "Study") -> str:
    if config.teacher.folds:
        return f"each of {config.teacher.folds} teachers, on average, is"
    return "the teacher is" if config.teacher.members == 1 else f"{config.teacher.members} teachers together are"
