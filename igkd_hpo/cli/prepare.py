"""`igkd-hpo prepare`: the assets alone."""

from dataclasses import asdict

from igkd_hpo.cli.arguments import (
    AllowImport,
    AsJson,
    Device,
    Storage,
    StudyFile,
    print_json,
    print_line,
    study_argument,
)
from igkd_hpo.words import percent


def prepare(
    study: StudyFile = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
) -> None:
    """Make what a study needs before its first trial: images, teacher, logits and attribution maps.

    Examples:
        igkd-hpo prepare cifar10
        igkd-hpo prepare flowers.yaml --device cuda:1
    """
    from igkd_hpo.api.prepare import prepare as run
    from igkd_hpo.api.source import settings_here, study_to_run
    from igkd_hpo.distillation.heap import keep_freed_memory
    from igkd_hpo.distillation.metrics import measured

    keep_freed_memory()
    config = study_to_run(study_argument(study), settings_here(storage, allow_import or ()))
    summary = run(config, storage=storage, device=device, allow_import=allow_import or ())
    if as_json:
        print_json(asdict(summary))
        return
    folds, members = config.teacher.folds, config.teacher.members
    teachers = "the teacher is" if members == 1 else f"{members} teachers together are"
    if folds:
        teachers = f"each of {folds} teachers, on average, is"
    reached = f"{teachers} right on {percent(summary.teacher_accuracy)} of validation"
    if config.metric != "accuracy":
        reached = f"{teachers} at {measured(summary.teacher_accuracy, config.metric)} on validation"
    print_line(f"{config.name}: ready; {reached}")
