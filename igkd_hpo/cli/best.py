"""`igkd-hpo best`: the best trial so far, and its confirmation."""

from igkd_hpo.cli.arguments import AsJson, ExistingStudy, Storage, UnderLimits, print_json, print_text
from igkd_hpo.config.cost_limit import parse_under


def best(
    study: ExistingStudy = None, under: UnderLimits = None, storage: Storage = None, as_json: AsJson = False
) -> None:
    """Show the best trial so far, how it compares with the controls, and what was confirmed.

    Examples:
        igkd-hpo best digits
        igkd-hpo best digits --under parameters=200k --under latency_ms=5
        igkd-hpo best digits --json
    """
    from igkd_hpo.api.study import open_study
    from igkd_hpo.confirmation.sentences import confirmation_json

    limits = parse_under(under or ())
    opened = open_study(study, storage=storage)
    if not as_json:
        print_text(opened.summary(under=limits))
        return
    found, confirmation = opened.best_under(limits), opened.confirmation_under(limits)
    print_json(found.as_json() | {"confirmed": confirmation_json(confirmation) if confirmation else None})
