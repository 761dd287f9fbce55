"""`igkd-hpo best`: the best trial so far."""

import typer

from igkd_hpo.cli.arguments import AsJson, ExistingStudy, Storage, existing_study, print_json
from igkd_hpo.settings import Settings


def best(study: ExistingStudy = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show the best trial so far, and how it compares with the controls.

    Example: igkd-hpo best digits --json
    """
    from igkd_hpo.results.best import best_trial, summary

    found = existing_study(study, Settings.resolve(storage_url=storage))
    if as_json:
        print_json(best_trial(found).as_json())
    else:
        typer.echo(summary(found))
