"""The files that a study needs: whether those that exist are whole, and whether there is room for the others."""

import shutil
from pathlib import Path

from igkd_hpo.assets.attention import open_attention
from igkd_hpo.assets.attribution_maps import open_maps
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.logits import open_logits
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, failed, fault, grade, not_checked, ok
from igkd_hpo.doctor.sizes import student_parameters, table_bytes
from igkd_hpo.doctor.storage import can_write_in, nearest_folder
from igkd_hpo.errors import AssetError, AssetMissing
from igkd_hpo.settings import Settings
from igkd_hpo.words import byte_size

_GROUP = "assets"
_TABLES = {
    "logits": (open_logits, "computed in each step"),
    "maps": (open_maps, "no trial uses overlays"),
    "attention": (open_attention, None),  # few studies ask for it
}
_MARGIN = 1.25  # of the room that is needed: other programs write too
_TRAINING_COPIES = 3  # of a network's weights in the checkpoint of an unfinished trial
_TRIAL_BYTES = 1 << 17  # log, pictures and rows of one trial


def check_assets(
    study: Study, dataset: Dataset | None, teacher_sha256: str | None, settings: Settings, *, workers: int
) -> list[Check]:
    """Check the tables, whether `storage/` can be written, and the disk space for what is still to be made."""
    writable = _check_writable(settings.paths.root)
    if dataset is None:
        names = (*(name for name, (_, absent) in _TABLES.items() if absent), "disk space")
        return [writable, *(not_checked(_GROUP, name, "the images cannot be used") for name in names)]
    checks, missing = [writable], 0
    for name, size in table_bytes(study, dataset).items():
        if size == 0 and _TABLES[name][1] is None:
            continue
        check, complete = _check_table(name, study, dataset, teacher_sha256, settings, size=size)
        checks.append(check)
        missing += 0 if complete else size
    return [*checks, _check_space(study, dataset, settings, missing=missing, workers=workers)]


def _check_table(
    name: str, study: Study, dataset: Dataset, teacher_sha256: str | None, settings: Settings, *, size: int
) -> tuple[Check, bool]:
    """Return the check, and whether nothing is left to be made."""
    open_table, absent = _TABLES[name]
    if size == 0:
        return ok(_GROUP, name, str(absent)), True
    opened, store = None, AssetStore(settings.paths.assets, in_full=True)
    try:
        if teacher_sha256 is not None:
            opened = open_table(study, dataset, teacher_sha256, store)
    except AssetMissing:
        pass
    except AssetError as error:
        return failed(_GROUP, name, error), False
    fate = "will be made" if opened is None else "there"
    return ok(_GROUP, name, f"{fate}, {byte_size(size)}"), opened is not None


def _check_writable(root: Path) -> Check:
    nearest = nearest_folder(root)
    if can_write_in(nearest):
        return ok(_GROUP, "storage folder", f"{root} {'can be written' if nearest == root else 'will be made'}")
    finding = f"{nearest} {'is not writable' if nearest.is_dir() else 'is a file, and a folder is needed'}"
    advice = "change its permissions, move it away, or start in another folder"
    return fault(_GROUP, "storage folder", finding, advice)


def _check_space(study: Study, dataset: Dataset, settings: Settings, *, missing: int, workers: int) -> Check:
    weights = 4 * student_parameters(study, dataset, settings)
    need = missing + study.n_trials * (weights + _TRIAL_BYTES) + workers * _TRAINING_COPIES * weights
    free = shutil.disk_usage(nearest_folder(settings.paths.root)).free
    finding = f"assets and checkpoints take up to {byte_size(need)} more, and {byte_size(free)} are free"
    advice = f"free some, or start in a folder on another disk than {settings.paths.root}"
    return grade(_GROUP, "disk space", finding, advice, faulty=need > free, doubtful=_MARGIN * need > free)
