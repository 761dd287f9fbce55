"""Describe a launch: what it would run, where, and, if workers were measured, about how long."""

import os
from collections.abc import Sequence

from igkd_hpo.config.space import shown_range
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check
from igkd_hpo.doctor.limits import check_limits, check_limits_of_file
from igkd_hpo.engines.probe import Probe
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.storage_url import mask
from igkd_hpo.search.study import SearchStudy, check_unchanged
from igkd_hpo.settings import Settings
from igkd_hpo.sources import find_source
from igkd_hpo.words import counted, duration

_UNREAD = "images: files changed; launch reads them again, and refuses them where they are not those of the study"


def describe_launch(
    study: Study,
    settings: Settings,
    *,
    workers: int,
    trials: int | None,
    device: str,
    measured: Probe | None = None,
    places: Sequence[str] | None = None,
) -> str:
    """Say in several lines what a launch would run. Creates nothing.

    Args:
        measured: what the number of workers was chosen by; without it no time is told.
        places: where the workers would run, in lines; None for this host.

    Raises:
        UsageError, StorageError: the study changed, the device is not there, or the database cannot be used.
        DataError: the images are not those of the study, or there are none where they are to be read.
    """
    from igkd_hpo.distillation.device import choose_device

    slots = max(1, workers)
    threads = max(1, len(os.sched_getaffinity(0)) // slots)
    if places is None:
        places = [
            f"worker {slot}: {choose_device(device, slot)}, {counted(threads, 'thread')}" for slot in range(slots)
        ]
    existing = _existing(study, settings)
    finished, recorded_total = (0, study.n_trials) if existing is None else _so_far(existing, study)
    images_known = existing is None or _check_images(existing, study, settings)
    total = trials or recorded_total
    left = max(0, total - finished)
    n_images, limits = _assets(study, settings)
    lines = [
        f"study {study.name}: {counted(total, 'trial')} of {study.training.epochs} epochs, {finished} finished",
        f"  controls: {', '.join(study.controls) or 'none'}",
        *(f"  searches {name}: {shown_range(setting)}" for name, setting in study.hyperparameters.searched().items()),
        *([] if study.timeout is None else [f"time: {study.timeout} at most"]),
        f"storage: {mask(settings.storage_url)}",
        *([str(measured)] if measured else []),
        *places,
        *(f"limits: {check.found}" for check in limits),
        "assets: to be made first (images, teacher, logits, maps)" if n_images is None else "assets: there",
        *([] if images_known else [_UNREAD]),
    ]
    if left == 0:
        return "\n".join([*lines, f"nothing is left to run; --trials N above {finished} adds more"])
    what = f"for what is left, {counted(left, 'trial')} without pruning"
    if measured is None or n_images is None:
        return "\n".join([*lines, f"time {what}: not known; --workers auto measures, once the assets are there"])
    rate = measured.levels[0].images_per_second * measured.gain * len(measured.devices)
    seconds = left * study.training.epochs * n_images / rate
    return "\n".join([*lines, f"time {what}: about {duration(seconds)} of training, at the speed measured"])


def _existing(study: Study, settings: Settings) -> SearchStudy | None:
    try:
        storage = open_storage_here(settings, create=False)
    except UsageError:  # no database yet
        return None
    return check_unchanged(storage, study)


def _so_far(existing: SearchStudy, study: Study) -> tuple[int, int]:
    """Return the number of finished trials, and the total that a launch without --trials would run to."""
    total = existing.read().n_trials if study.n_trials == existing.config.n_trials else study.n_trials
    return existing.counts().finished, total


def _check_images(existing: SearchStudy, study: Study, settings: Settings) -> bool:
    """Return whether the images here are known to be the study's. Raises DataError where known to be others."""
    from igkd_hpo.assets.study_images import check_unread_images

    pinned = existing.read().pins
    return pinned is None or check_unread_images(study, pinned, settings)


def _assets(study: Study, settings: Settings) -> tuple[int | None, list[Check]]:
    """Return the number of training images, None until the assets are made, and what the limits allow."""
    from igkd_hpo.assets.dataset import find_images
    from igkd_hpo.assets.study_assets import open_assets

    try:
        dataset = open_assets(study, settings).dataset
    except IgkdError:
        if find_source(study.dataset.name).root == "needed":  # others may have to be downloaded first
            find_images(study.dataset, settings)
        return None, check_limits_of_file(study, settings)
    height, width = dataset.train_images.shape[-2:]
    return len(dataset.train_images), check_limits(study, len(dataset.class_names), (height, width), settings)
