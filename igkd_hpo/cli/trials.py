"""`igkd-hpo trials`: every trial of a study, for people, programs and spreadsheets."""

import sys
from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import ExistingStudy, Storage, print_stream
from igkd_hpo.errors import UsageError


def trials(
    study: ExistingStudy = None,
    as_csv: Annotated[bool, Option("--csv", help="Print CSV with every column, as into a pipe or a file.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print a JSON array, with the learning curves.")] = False,
    storage: Storage = None,
) -> None:
    """List all trials by number; in CSV and JSON with time, the student's cost and every hyperparameter.

    A terminal shows the settings that were searched. Into a pipe or a file it is CSV, with --csv and without.

    Examples:
        igkd-hpo trials digits
        igkd-hpo trials digits --csv
        igkd-hpo trials digits --json
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json are two forms of one table; give one of them")
    from igkd_hpo.api.study import open_study
    from igkd_hpo.search import trial_table

    opened = open_study(study, storage=storage)
    found = opened.trials
    if not (as_csv or as_json) and sys.stdout.isatty():
        from igkd_hpo.terminal.console import Console
        from igkd_hpo.terminal.trial_list import trial_list

        searched = opened.study_file.hyperparameters.searched()
        Console().print(trial_list(found, searched, opened.study_file.metric))
        return
    print_stream(trial_table.as_json(found) if as_json else trial_table.as_csv(found))
