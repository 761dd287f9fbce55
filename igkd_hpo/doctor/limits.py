"""The limits of the device: whether any student of the search space keeps them, in each stratum, and the controls."""

from collections.abc import Collection

from igkd_hpo.config.strata import Strata
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, fault, ok, warning
from igkd_hpo.settings import Settings
from igkd_hpo.sources import find_source

_GROUP = "limits"


def check_limits(
    study: Study,
    num_classes: int,
    image_size: tuple[int, int],
    settings: Settings,
    *,
    contiguous: Collection[str] = (),
) -> list[Check]:
    """Check whether any student keeps the limits, and any is in each stratum; nothing where nothing is limited.

    The smallest is built and timed, and some dozens are counted for strata.

    Args:
        contiguous: architectures that run in no other layout of memory.
    """
    found = _check_fit(study, num_classes, image_size, settings, contiguous) if study.limits.any else []
    strata = [] if study.strata is None else [_check_strata(study, study.strata, num_classes, image_size, settings)]
    return [*found, *strata]


def check_limits_of_file(study: Study, settings: Settings) -> list[Check]:
    """Check the limits without images, where the data set's image size and number of classes are published."""
    published = find_source(study.dataset.name).published
    side = study.dataset.image_size or (published.side if published else None)
    return check_limits(study, published.classes, (side, side), settings) if published and side else []


def _check_fit(
    study: Study, num_classes: int, image_size: tuple[int, int], settings: Settings, contiguous: Collection[str]
) -> list[Check]:
    from igkd_hpo.trial.student import check_fit

    fit = check_fit(
        study,
        num_classes=num_classes,
        image_size=image_size,
        allow_import=settings.allow_import,
        contiguous=contiguous,
    )
    if fit.smallest is not None:
        finding = f"even the smallest student of the study has {fit.smallest}"
        return [fault(_GROUP, "search space", finding, fit.shrink)]
    smallest = ok(_GROUP, "search space", "the smallest student of the study is within them")
    if fit.controls is not None:
        finding = f"the controls will not be trained: their student has {fit.controls}"
        return [smallest, warning(_GROUP, "controls", finding, fit.narrow)]
    return [smallest, ok(_GROUP, "controls", "are within them")] if study.controls else [smallest]


def _check_strata(
    study: Study, strata: Strata, num_classes: int, image_size: tuple[int, int], settings: Settings
) -> Check:
    from igkd_hpo.trial.sizes import find_sizes

    sizes = find_sizes(
        study, strata, num_classes=num_classes, image_size=image_size, allow_import=settings.allow_import
    )
    if sizes.fault is not None:
        return fault(_GROUP, "strata", sizes.fault, sizes.remedy)
    ends = ", ".join(f"{end:,.12g}" for end in strata.at)
    return ok(_GROUP, "strata", f"strata up to {ends}; {sizes.range_in_words}")
