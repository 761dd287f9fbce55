"""`igkd-hpo best`: the best trial so far, and what its confirmation says."""

import typer

from igkd_hpo.cli.arguments import AsJson, ExistingStudy, Storage, existing_study, print_json
from igkd_hpo.settings import Settings


def best(study: ExistingStudy = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show the best trial so far, how it compares with the controls, and what was confirmed.

    Example: igkd-hpo best digits --json
    """
    from igkd_hpo.results.best import best_trial, result, summary
    from igkd_hpo.results.confirm.confirmation import confirmation_of
    from igkd_hpo.results.confirm.sentences import confirmation_json, sentences
    from igkd_hpo.search.linked_study import parent_of

    found = parent_of(existing_study(study, Settings.resolve(storage_url=storage)))
    confirmation = confirmation_of(found)
    if as_json:
        confirmed = confirmation_json(confirmation) if confirmation else None
        print_json(best_trial(found).as_json() | {"confirmed": confirmed})
    elif confirmation is None:
        typer.echo(summary(found))
    else:
        typer.echo(result(found, best_trial(found)))
        typer.echo(f"confirmed with fresh seeds ({confirmation.linked_study}):")
        typer.echo("\n".join(f"  {sentence}" for sentence in sentences(confirmation)))
