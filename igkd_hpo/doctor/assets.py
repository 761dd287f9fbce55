"""The files that a study needs: are those that are there whole, and is there room for the others."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, failed, fault, not_checked, ok, warning
from igkd_hpo.doctor.sizes import largest_student, table_bytes
from igkd_hpo.errors import AssetError, AssetMissing
from igkd_hpo.settings import Settings
from igkd_hpo.words import byte_size

if TYPE_CHECKING:
    from igkd_hpo.assets.dataset import Dataset

_GROUP = "assets"
_MARGIN = 1.25  # of the room that is needed: other programs write too
_TRAINING_COPIES = 3  # of a network's weights in the checkpoint of an unfinished trial
_TRIAL_BYTES = 1 << 17  # log, pictures and rows of one trial


def check_assets(
    study: Study, dataset: "Dataset | None", teacher_sha256: str | None, settings: Settings, *, workers: int
) -> list[Check]:
    """Check logits and maps, whether `storage/` can be written, and the disk space for what is still to be made."""
    writable = _check_writable(settings)
    if dataset is None:
        names = ("logits", "maps", "disk space")
        return [writable, *(not_checked(_GROUP, name, "the images cannot be used") for name in names)]
    logits_bytes, maps_bytes = table_bytes(study, dataset)
    logits, logits_there = _check_table("logits", study, dataset, teacher_sha256, settings, size=logits_bytes)
    maps, maps_there = _check_table("maps", study, dataset, teacher_sha256, settings, size=maps_bytes)
    missing = (0 if logits_there else logits_bytes) + (0 if maps_there else maps_bytes)
    return [writable, logits, maps, _check_space(study, dataset, settings, missing=missing, workers=workers)]


def _check_table(
    name: str, study: Study, dataset: "Dataset", teacher_sha256: str | None, settings: Settings, *, size: int
) -> tuple[Check, bool]:
    """Return the check, and whether nothing is left to be made."""
    from igkd_hpo.assets.attribution_maps import open_maps
    from igkd_hpo.assets.logits import open_logits

    if size == 0:
        return ok(_GROUP, name, "computed in each step" if name == "logits" else "no trial uses overlays"), True
    will = ok(_GROUP, name, f"will be made, {byte_size(size)}")
    if teacher_sha256 is None:
        return will, False
    try:
        opened = (open_logits if name == "logits" else open_maps)(
            study, dataset, teacher_sha256, AssetStore(settings.paths.assets, in_full=True)
        )
    except AssetMissing:
        return will, False
    except AssetError as error:
        return failed(_GROUP, name, error), False
    return (will, False) if opened is None else (ok(_GROUP, name, f"there, {byte_size(size)}"), True)


def _check_writable(settings: Settings) -> Check:
    name = "storage folder"
    root = settings.paths.root
    there = nearest_folder(root)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ok(_GROUP, name, f"{root} {'can be written' if there == root else 'will be made'}")
    what = "is not writable" if there.is_dir() else "is a file, and a folder is needed"
    return fault(_GROUP, name, f"{there} {what}", "change its permissions, move it away, or start in another folder")


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest one above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _check_space(study: Study, dataset: "Dataset", settings: Settings, *, missing: int, workers: int) -> Check:
    import torch

    from igkd_hpo.distillation.models import count_parameters

    name = "disk space"
    with torch.device("meta"):
        weights = 4 * count_parameters(largest_student(study, dataset.num_classes))
    need = missing + study.n_trials * (weights + _TRIAL_BYTES) + workers * _TRAINING_COPIES * weights
    free = shutil.disk_usage(nearest_folder(settings.paths.root)).free
    found = f"assets and checkpoints take up to {byte_size(need)} more, and {byte_size(free)} are free"
    advice = f"free some, or start in a folder on another disk than {settings.paths.root}"
    if need > free:
        return fault(_GROUP, name, found, advice)
    if _MARGIN * need > free:
        return warning(_GROUP, name, found, advice)
    return ok(_GROUP, name, found)
