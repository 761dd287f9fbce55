"""`igkd-hpo export`: the best configuration as a study file without ranges."""

from pathlib import Path
from typing import Annotated

import typer

from igkd_hpo.cli.arguments import ExistingStudy, Storage, existing_study
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings


def export(
    study: ExistingStudy = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")] = Path("best.yaml"),
    storage: Storage = None,
) -> None:
    """Write the best configuration to a file that train, validate and launch take as it is.

    Example: igkd-hpo export digits -o best.yaml
    """
    from igkd_hpo.config.writing import to_yaml, write_text
    from igkd_hpo.results.confirm.choice import best_or_confirmed, described
    from igkd_hpo.results.export import exported_study

    found, best = best_or_confirmed(existing_study(study, Settings.resolve(storage_url=storage)))
    try:
        write_text(output, to_yaml(exported_study(found, best)))
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}; give another place with -o") from error
    typer.echo(f"{output}: {described(found, best)}", err=True)
