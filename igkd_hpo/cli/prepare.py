"""`igkd-hpo prepare`: the assets alone."""

from dataclasses import asdict

import typer

from igkd_hpo.cli.arguments import AllowImport, AsJson, Device, Storage, StudyFile, print_json, study_to_run
from igkd_hpo.cli.progress import make_progress
from igkd_hpo.config.study import Study
from igkd_hpo.settings import Settings


def prepare(
    study: StudyFile = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
) -> None:
    """Make what a study needs before its first trial: images, teacher, logits and attribution maps.

    Example: igkd-hpo prepare cifar10
    """
    settings = Settings.resolve(storage_url=storage, allow_import=tuple(allow_import or ()))
    config = study_to_run(study, settings)

    from igkd_hpo.assets.study_assets import prepare_assets
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.memory import keep_freed_memory
    from igkd_hpo.results.doctor.limits import refuse_unfit

    keep_freed_memory()

    with make_progress() as progress:
        refuse_unfit(config, settings, progress)
        chosen = choose_device(device)
        named = "cuda" if chosen.type == "cuda" and ":" not in device else str(chosen)  # one, or all that there are
        summary = prepare_assets(config, settings, device=named, progress=progress)
    if as_json:
        print_json(asdict(summary))
    else:
        typer.echo(f"{config.name}: ready; {_teachers(config)} right on {summary.teacher_accuracy:.2%} of validation")


def _teachers(config: Study) -> str:
    if config.teacher.folds:
        return f"each of {config.teacher.folds} teachers, on average, is"
    return "the teacher is" if config.teacher.members == 1 else f"{config.teacher.members} teachers together are"
