"""`igkd-hpo doctor`: checks of study file, data, teacher, storage and devices before hours are spent."""

from dataclasses import asdict
from typing import Annotated

import typer
from typer import Option

from igkd_hpo.cli.arguments import (
    AllowImport,
    AsJson,
    Device,
    Storage,
    StudyFile,
    print_json,
    print_line,
    study_argument,
)
from igkd_hpo.errors import ExitCode, StudyFileError, UsageError
from igkd_hpo.files import user_path
from igkd_hpo.words import counted


def doctor(
    study: StudyFile = None,
    workers: Annotated[int, Option("--workers", help="Trials side by side that there must be room for.")] = 1,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
) -> None:
    """Check the study file, data, teacher, students, storage and devices; exit code 5 on a fault.

    Examples:
        igkd-hpo doctor flowers.yaml --workers 4
    """
    from igkd_hpo.api.source import looks_like_path, settings_here, study_to_run
    from igkd_hpo.config.study import Study
    from igkd_hpo.doctor.check import CheckVerdict
    from igkd_hpo.terminal.console import Console
    from igkd_hpo.terminal.progress import make_progress

    if workers < 1:
        raise UsageError(f"--workers {workers} is below 1; give the number of trials to run side by side")
    settings = settings_here(storage, allow_import or ())
    config: Study | StudyFileError
    try:
        config = study_to_run(study_argument(study), settings)
    except StudyFileError as error:
        if study is not None and looks_like_path(study) and not user_path(study).exists():
            raise
        config = error
    from igkd_hpo.doctor.doctor import checks_table, examine  # imports torch, after what was typed wrong is said

    with make_progress() as progress:
        checks = examine(config, settings, workers=workers, device=device, progress=progress)
    faults = sum(check.verdict is CheckVerdict.FAULT for check in checks)
    warnings = sum(check.verdict is CheckVerdict.WARNING for check in checks)
    hidden = sum(check.verdict is CheckVerdict.NOT_CHECKED for check in checks)
    if as_json:
        print_json({"faults": faults, "warnings": warnings, "checks": [asdict(check) for check in checks]})
    else:
        Console().print(checks_table(checks))
        told = f"{counted(len(checks) - hidden, 'check')}: {counted(faults, 'fault')}, {counted(warnings, 'warning')}"
        print_line(told + (f"; {hidden} more could not be made" if hidden else ""))
    if faults:
        raise typer.Exit(ExitCode.DOCTOR)
