"""`igkd-hpo best`: the best trial so far, and its confirmation."""

from igkd_hpo.cli.arguments import AsJson, ExistingStudy, Storage, print_json, print_text


def best(study: ExistingStudy = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show the best trial so far, how it compares with the controls, and what was confirmed.

    Examples:
        igkd-hpo best digits
        igkd-hpo best digits --json
    """
    from igkd_hpo.api.study import open_study
    from igkd_hpo.confirm.sentences import confirmation_json

    opened = open_study(study, storage=storage)
    if not as_json:
        print_text(opened.summary())
        return
    confirmation = opened.confirmation
    print_json(opened.best.as_json() | {"confirmed": confirmation_json(confirmation) if confirmation else None})
