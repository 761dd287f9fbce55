"""`igkd-hpo trials`: every trial of a study, for programs and spreadsheets."""

from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import ExistingStudy, Storage, print_stream
from igkd_hpo.errors import UsageError


def trials(
    study: ExistingStudy = None,
    as_csv: Annotated[bool, Option("--csv", help="Print CSV, which it does without --json too.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print a JSON array, with the learning curves.")] = False,
    storage: Storage = None,
) -> None:
    """Print all trials by number: state, accuracy, time, the student's cost and the hyperparameters.

    Examples:
        igkd-hpo trials digits --csv
        igkd-hpo trials digits --json
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json are two forms of one table; give one of them")
    from igkd_hpo.api.study import open_study
    from igkd_hpo.search import trial_table

    found = open_study(study, storage=storage).trials
    print_stream(trial_table.as_json(found) if as_json else trial_table.as_csv(found))
