"""Preparation of a study in this process: first whether its students fit device and teacher, then its assets."""

import torch

from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import AssetSummary, prepare_assets
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.device import choose_device
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.comparison import check_features
from igkd_hpo.trial.sizes import find_sizes
from igkd_hpo.trial.step import contiguous_alone
from igkd_hpo.trial.student import check_fit


def prepare_study(
    study: Study, settings: Settings, *, device: str, progress: Progress, pinned: AssetPins | None = None
) -> AssetSummary:
    """Make a study's images, teacher, logits and maps where they are missing.

    Args:
        device: auto, cpu, cuda or cuda:N.
        pinned: see `prepare_assets`.

    Raises:
        StudyFileError: no student of the study is within its limits, or in one of its strata.
        UsageError, DataError, TeacherError: the device, the images or the teacher cannot be used, or a student cannot
            be compared with it.
        AssetError: an asset is damaged, or cannot be written.
    """
    chosen = choose_device(device)
    _refuse_unfit(study, settings, chosen, progress)
    if study.uses(Role.FEATURES):  # before a teacher is trained, for hours, that no student can be compared with
        dataset = prepare_dataset(study.dataset, settings, AssetStore(settings.paths.assets), progress)
        check_features(study, dataset, settings)
    named = "cuda" if chosen.type == "cuda" and ":" not in device else str(chosen)  # one, or all that there are
    return prepare_assets(study, settings, device=named, progress=progress, pinned=pinned)


def _refuse_unfit(study: Study, settings: Settings, device: torch.device, progress: Progress) -> None:
    """Raise StudyFileError where no student is within the limits, or in a stratum; warn where the controls are not."""
    if not study.limits.any and study.strata is None:
        return
    dataset = prepare_dataset(study.dataset, settings, AssetStore(settings.paths.assets), progress)
    fit = check_fit(
        study,
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
        allow_import=settings.allow_import,
        contiguous=contiguous_alone(study, dataset, settings, device),
    )
    if fit.smallest is not None:
        raise StudyFileError(f"{study.name}: even the smallest student of the study has {fit.smallest}; {fit.shrink}")
    if study.strata is not None:
        sizes = find_sizes(
            study,
            study.strata,
            num_classes=dataset.num_classes,
            image_size=dataset.image_size,
            allow_import=settings.allow_import,
        )
        if sizes.fault is not None:
            raise StudyFileError(f"{study.name}: {sizes.fault}; {sizes.remedy}")
    if fit.controls is not None:
        progress.warn(f"the controls will not be trained: their student has {fit.controls}; {fit.narrow}")
