"""`igkd-hpo validate`: the study file alone."""

from typing import Annotated

import typer

from igkd_hpo.cli.arguments import StudyFile, study_to_run
from igkd_hpo.config.study import Study
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Settings


def validate(
    study: StudyFile = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of study files instead.")] = False,
) -> None:
    """Check a study file, and name every fault in it.

    Example: igkd-hpo validate my-study.yaml
    """
    if schema:
        from igkd_hpo.cli.arguments import print_json

        print_json(Study.model_json_schema())
        return
    from igkd_hpo.results.doctor.check import Verdict
    from igkd_hpo.results.doctor.limits import check_limits_of_file
    from igkd_hpo.results.doctor.study_file import check_study_file

    checked = study_to_run(study, Settings.resolve())
    file, *others = [*check_study_file(checked), *check_limits_of_file(checked)]
    typer.echo(f"{checked.name}: {file.found}")
    for check in others:
        if check.verdict is Verdict.FAULT:
            raise StudyFileError(f"{checked.name}: {check.found}; {check.advice}")
        if check.verdict is not Verdict.OK:
            typer.echo(f"warning: {check.found}; {check.advice}", err=True)
