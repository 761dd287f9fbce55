"""`igkd-hpo validate`: the study file alone."""

from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import StudyFile, print_json, print_line, study_argument


def validate(
    study: StudyFile = None,
    schema: Annotated[bool, Option("--schema", help="Print the JSON schema of study files instead.")] = False,
) -> None:
    """Check a study file, and name every fault in it.

    Examples:
        igkd-hpo validate flowers.yaml
        igkd-hpo validate --schema > study.schema.json
    """
    if schema:
        from igkd_hpo.config.study import Study

        print_json(Study.model_json_schema())
        return
    from igkd_hpo.api.validate import validate as run

    valid = run(study_argument(study))
    print_line(f"{valid.study_file.name}: {valid.found}")
    for warning in valid.warnings:
        print_line(f"warning: {warning}", err=True)
