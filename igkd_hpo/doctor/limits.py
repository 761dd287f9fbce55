"""The limits of the device: can any student of the search space keep them, and can the controls?"""

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, CheckVerdict, fault, ok, warning
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Settings

_GROUP = "limits"
_PUBLISHED = {"digits": (8, 10), "cifar10": (32, 10), "cifar100": (32, 100)}
"""Side in pixels and number of classes of the data sets that everybody has alike."""


def check_limits(study: Study, num_classes: int, image_size: tuple[int, int]) -> list[Check]:
    """Check whether any student keeps the limits: builds and times the smallest; nothing where nothing is limited."""
    if not study.limits.any:
        return []
    from igkd_hpo.trial.student import check_fit

    fit = check_fit(study, num_classes=num_classes, image_size=image_size)
    if fit.smallest is not None:
        advice = "raise the limit, or let layers_removed be higher or width lower"
        return [fault(_GROUP, "search space", f"even the smallest student of the study has {fit.smallest}", advice)]
    smallest = ok(_GROUP, "search space", "the smallest student of the study is within them")
    if fit.controls is not None:
        found = f"the controls will not be trained: their student has {fit.controls}"
        advice = "narrow layers_removed and width so that the middle of their ranges is within the limits"
        return [smallest, warning(_GROUP, "controls", found, advice)]
    return [smallest, ok(_GROUP, "controls", "are within them")] if study.controls else [smallest]


def check_limits_of_file(study: Study) -> list[Check]:
    """Check the limits as far as the file alone tells how large its images are, and of how many classes."""
    known = _PUBLISHED.get(study.dataset.name)
    return check_limits(study, known[1], (known[0], known[0])) if known else []


def refuse_unfit(study: Study, settings: Settings, progress: Progress) -> None:
    """Raise StudyFileError where no student of the study is within its limits; warn where only the controls are not.

    Reads the images for it, and is asked before a teacher is trained.
    """
    if not study.limits.any:
        return
    from igkd_hpo.assets.dataset import prepare_dataset
    from igkd_hpo.assets.store import AssetStore

    dataset = prepare_dataset(study.dataset, settings, AssetStore(settings.paths.assets), progress)
    for check in check_limits(study, dataset.num_classes, dataset.image_size):
        if check.verdict is CheckVerdict.FAULT:
            raise StudyFileError(f"{study.name}: {check.found}; {check.advice}")
        if check.verdict is CheckVerdict.WARNING:
            progress.warn(f"{check.found}; {check.advice}")
