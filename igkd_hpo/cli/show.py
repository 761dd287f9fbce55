"""`igkd-hpo show`: pictures of a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import ExistingStudy, Storage
from igkd_hpo.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from igkd_hpo.search.study import SearchStudy
    from igkd_hpo.settings import Settings


def show(
    study: ExistingStudy = None,
    maps: Annotated[int | None, typer.Option("--maps", help="This many images with their maps and overlays.")] = None,
    curves: Annotated[bool, typer.Option("--curves", help="The learning curves of all trials.")] = False,
    importance: Annotated[bool, typer.Option("--importance", help="Which hyperparameters mattered.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .png, .svg or .pdf file.")] = None,
    storage: Storage = None,
) -> None:
    """Draw a picture of a study: maps, learning curves, or importances.

    Examples:
        igkd-hpo show digits --maps 16 -o maps.png
        igkd-hpo show digits --curves
    """
    if (maps is not None) + curves + importance != 1:
        raise UsageError("show draws one picture: give one of --maps N, --curves and --importance")
    if maps is not None and maps < 1:
        raise UsageError(f"--maps {maps} shows nothing; give 1 or more")
    from igkd_hpo.api.source import existing_study, settings_here
    from igkd_hpo.report.pictures import curves_figure, importance_figure, save_figure

    settings = settings_here(storage)
    found = existing_study(study, settings)
    kind = "curves" if curves else "importance" if importance else "maps"
    if maps is not None:
        figure = _maps(found, settings, maps)
    else:
        figure = curves_figure(found) if curves else importance_figure(found)
    path = output or Path(f"{found.name}-{kind}.png")
    save_figure(figure, path)
    typer.echo(path)


def _maps(found: "SearchStudy", settings: "Settings", count: int) -> "Figure":
    from igkd_hpo.assets.study_assets import open_assets
    from igkd_hpo.errors import NoCompletedTrial
    from igkd_hpo.report.pictures import maps_figure
    from igkd_hpo.search.best import best_trial
    from igkd_hpo.trial.build import overlay_examples

    try:
        used = best_trial(found).hyperparameters
        strength, mode = float(used["overlay_strength"]), str(used["overlay_mode"])
    except NoCompletedTrial:
        strength, mode = 0.5, "blend"  # the paper's
    examples = overlay_examples(open_assets(found.config, settings), strength=strength, mode=mode, count=count)
    if examples is None:
        raise UsageError(f"study {found.name} uses no overlays, so it has no maps; --curves shows its trials")
    return maps_figure(*examples)
