"""`igkd-hpo show`: pictures of a study."""

from pathlib import Path
from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import ExistingStudy, Storage, print_line
from igkd_hpo.errors import NoCompletedTrial, UsageError
from igkd_hpo.files import user_path


def show(
    study: ExistingStudy = None,
    maps: Annotated[int | None, Option("--maps", help="This many images with their maps and overlays.")] = None,
    curves: Annotated[bool, Option("--curves", help="The learning curves of all trials.")] = False,
    importance: Annotated[bool, Option("--importance", help="Which hyperparameters mattered.")] = False,
    output: Annotated[Path | None, Option("-o", "--output", help="A .png, .svg or .pdf file.")] = None,
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
    from igkd_hpo.report.pictures import curves_figure, importance_figure, maps_figure, save_figure

    settings = settings_here(storage)
    opened = existing_study(study, settings)
    if maps is None:
        kind, figure = ("curves", curves_figure(opened)) if curves else ("importance", importance_figure(opened))
    else:
        from igkd_hpo.assets.study_assets import open_assets
        from igkd_hpo.search.best import best_trial
        from igkd_hpo.trial.build import overlay_examples

        try:
            trained = best_trial(opened).hyperparameters
            strength, mode = float(trained["overlay_strength"]), str(trained["overlay_mode"])
        except NoCompletedTrial:
            strength, mode = 0.5, "blend"  # the paper's
        examples = overlay_examples(open_assets(opened.config, settings), strength=strength, mode=mode, count=maps)
        if examples is None:
            raise UsageError(f"study {opened.name} uses no overlays, so it has no maps; --curves shows its trials")
        kind, figure = "maps", maps_figure(*examples, f"strength {strength:.2g},\n{mode}")
    path = user_path(output or f"{opened.name}-{kind}.png")
    save_figure(figure, path)
    print_line(path)
