"""Find, and remove, what runs left behind below `storage/` and no study in the database needs."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna.trial import TrialState
from sqlalchemy import text

from igkd_hpo.api.source import settings_here
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.choice import best_or_confirmed
from igkd_hpo.confirmation.evaluation import untested
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.identity import is_dead
from igkd_hpo.search.lease_table import read_leases
from igkd_hpo.search.removal import StoredStudy
from igkd_hpo.search.storage import SharedStorage, open_storage, open_storage_here
from igkd_hpo.search.storage_url import check_url
from igkd_hpo.search.study import SearchStudy, study_names
from igkd_hpo.search.study_folder import study_folder
from igkd_hpo.settings import Paths, Settings, sqlite_url

STALE_SECONDS = 3600  # what changed since then may be in the making: a launch makes assets before it makes its study
_TEMPORARY = re.compile(r"\..+\.\d+|\.upload-.+")  # as `files.replacing` and `written_pictures` name them


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or folder that nothing needs; `why` says so in words, `size` is in bytes."""

    path: Path
    why: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """List of what nothing needs, the largest first.

    Args:
        old: what can go, or went.
        young: what changed or was opened within the last hour, and stays for now.
        seconds: until all of `young` can go, if it stays as it is; 0 where there is none.
    """

    old: list[Leftover]
    young: list[Leftover]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """Hold what the studies of the databases need.

    Args:
        studies: by folder.
        whole: folders of which all stays.
        pictures: text that names all pictures in use.
        all_assets: one of them cannot be read, or has no pins yet.
    """

    studies: dict[str, SearchStudy]
    whole: frozenset[str]
    pictures: str
    all_assets: bool


def clean(*, storage: str | None = None, remove: bool = False) -> Leftovers:
    """Find what no study in the database needs, the largest first; remove it only with `remove`.

    Assets of data or a teacher that no study has, weights and logs of studies that are gone or finished (the best
    trial's weights stay), pictures of trials that are gone, and what killed processes left. Whatever changed, and
    whichever asset was opened, within the last hour stays.

    Args:
        storage: as for `launch`. A SQLite database below `storage/` counts beside it.

    Raises:
        UsageError: trials run, or assets are being made; there is no database.
        StorageError: the database is out of reach.
        OSError: something cannot be removed.
    """
    settings = settings_here(storage)
    paths = settings.paths
    with _databases(settings) as storages:
        needs = _needs(storages)
        found = sorted(_leftovers(paths, needs), key=lambda leftover: (-leftover.size, leftover.path))
        ages = {leftover.path: _age(leftover.path) for leftover in found}
        old = [leftover for leftover in found if ages[leftover.path] > STALE_SECONDS]
        young = [leftover for leftover in found if ages[leftover.path] <= STALE_SECONDS]
        if remove:
            _check_idle(storages, paths)
            old = [leftover for leftover in old if _remove(leftover.path)]
    seconds = STALE_SECONDS - min((ages[leftover.path] for leftover in young), default=STALE_SECONDS)
    return Leftovers(old=old, young=young, seconds=seconds)


def remove_files_of(study: StoredStudy, settings: Settings) -> int:
    """Remove weights, logs and pictures of a study that was deleted, and return how many bytes they took.

    What a study of these databases needs stays, as where two databases share a folder. Assets are left to `clean`.
    """
    paths = settings.paths
    own = {root / study.folder for root in (paths.checkpoints, paths.logs)}
    own |= {paths.artifacts / name for name in study.artifacts}
    with _databases(settings) as storages:
        needs = _needs(storages)
        found = [*_pictures(paths, needs), *_of_studies(paths, needs)]
    gone = [path for path, _ in found if path in own]
    size = sum(_size(path) for path in gone)
    for path in gone:
        _delete(path)
    return size


@contextmanager
def _databases(settings: Settings) -> Iterator[list[SharedStorage]]:
    """Open the database of the settings, and a SQLite file below `storage/` beside it."""
    storages = [open_storage_here(settings, create=False)]
    own = sqlite_url(settings.paths.database)
    try:
        if check_url(own) != storages[0].url:
            with suppress(UsageError):  # none there
                storages.append(open_storage(own, create=False))
        yield storages
    finally:
        for one in storages:
            one.engine.dispose()


def _remove(path: Path) -> bool:
    """Remove a file or folder, but for one that a launch has taken up since it was found; return whether it did."""
    if _age(path) <= STALE_SECONDS:
        return False
    _delete(path)
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_idle(storages: Sequence[SharedStorage], paths: Paths) -> None:
    for storage in storages:
        with storage.reading() as connection:
            for study in storage.get_all_studies():
                for lease in read_leases(connection, study._study_id):
                    if not is_dead(lease.process):
                        raise UsageError(
                            f"a trial of study {study.study_name} runs on {lease.process.host}; wait for its end, or "
                            f"`igkd-hpo stop {study.study_name} --now`, then clean"
                        )
    for path in (paths.assets / "locks").glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            raise UsageError(f"the asset {path.stem} is being made; wait for its end, then clean") from None


def _needs(storages: Sequence[SharedStorage]) -> _Needs:
    studies: dict[str, SearchStudy] = {}
    whole: set[str] = set()
    pictures, all_assets = [], False
    for storage in storages:
        for name in study_names(storage):
            try:
                study = SearchStudy(storage, name)
                record = study.read()
                study.trials()
            except UsageError:  # it may need anything
                whole |= {name, study_folder(_attributes(storage, name), name)}
                all_assets = True
                continue
            if study.folder in studies:  # one in each of two databases, which share their folders
                whole.add(study.folder)
                all_assets = True
            studies[study.folder] = study
            if study.folder != name and "folder" not in record.attributes:
                whole.add(name)  # earlier versions went on there when it was renamed
            all_assets |= record.pins is None
        with storage.reading() as connection:
            for table in ("trial_system_attributes", "study_system_attributes"):
                query = f"SELECT value_json FROM {table} WHERE key LIKE 'artifacts:%'"
                pictures += [str(written) for (written,) in connection.execute(text(query))]
    return _Needs(studies=studies, whole=frozenset(whole), pictures="\n".join(pictures), all_assets=all_assets)


def _attributes(storage: SharedStorage, name: str) -> Mapping[str, Any]:
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    except KeyError:  # deleted a moment ago
        return {}


def _leftovers(paths: Paths, needs: _Needs) -> Iterator[Leftover]:
    found = [*_temporary(paths), *_pictures(paths, needs), *_of_studies(paths, needs), *_assets(paths, needs)]
    for path, why in found:
        yield Leftover(path=path, why=why, size=_size(path))


def _size(path: Path) -> int:
    return sum(stat.st_blocks * 512 for stat in _stats(path))


def _age(path: Path) -> float:
    """Return the seconds since anything of a file or folder changed, or an asset was opened; 0 where it is gone."""
    return max(0.0, time.time() - max((stat.st_mtime for stat in _stats(path)), default=time.time()))


def _stats(path: Path) -> list[os.stat_result]:
    found = []
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with suppress(FileNotFoundError):  # whoever made it removed it meanwhile
            found.append(one.lstat())
    return found


def _temporary(paths: Paths) -> Iterator[tuple[Path, str]]:
    for path in paths.root.glob(".ray-*"):  # one that runs touches its own
        yield path, "of a launch on Ray that was killed"
    for folder in (paths.artifacts, paths.assets / "references", paths.assets / "verified", paths.checkpoints):
        places = folder.rglob(".*") if folder == paths.checkpoints else folder.glob(".*")
        yield from ((path, "half written") for path in places if _TEMPORARY.fullmatch(path.name))


def _pictures(paths: Paths, needs: _Needs) -> Iterator[tuple[Path, str]]:
    for path in paths.artifacts.glob("[!.]*"):
        if path.name not in needs.pictures:
            yield path, "a picture of a trial that is gone"


def _of_studies(paths: Paths, needs: _Needs) -> Iterator[tuple[Path, str]]:
    for root, what in ((paths.checkpoints, "weights"), (paths.logs, "logs")):
        for folder in (path for path in root.glob("*") if path.is_dir()):
            if folder.name in needs.whole:
                continue
            if folder.name not in needs.studies:
                yield folder, f"{what} of study {folder.name}, which is in no database here"
                continue
            study = needs.studies[folder.name]
            unfinished = any(not trial.state.is_finished() for trial in study.trials())
            ended = study.counts().finished >= study.read().n_trials and not unfinished
            if root == paths.checkpoints:
                yield from _weights(folder, study, ended=ended)
            elif ended:
                yield folder, f"logs of study {study.name}, which is finished"


def _weights(folder: Path, study: SearchStudy, *, ended: bool) -> Iterator[tuple[Path, str]]:
    """Find the weights that nothing reads any more: report, export and confirm read those of the best trial.

    Of a ladder that was tested nothing is read any more.
    """
    trials = study.trials()
    kept = {trial.number for trial in trials}
    if ended and not (study.confirms is not None and untested(study)):
        with suppress(IgkdError):
            if study.purpose == "ladder":
                kept = set()
            else:
                best = best_or_confirmed(study)[1] if study.purpose == "confirm" else best_trial(study)
                kept = {best.number}
    for trial in trials:
        path = folder / f"trial-{trial.number:05d}"
        lost = trial.state in (TrialState.PRUNED, TrialState.FAIL) and "attempts" in trial.user_attrs
        if path.exists() and (lost or trial.number not in kept):
            yield path, f"weights of trial {trial.number} of study {study.name}, which is not its best"


def _assets(paths: Paths, needs: _Needs) -> Iterator[tuple[Path, str]]:
    for path in paths.assets.glob("*.partial"):
        yield path, "an asset whose maker ended"
    if needs.all_assets:
        return
    studies = [(study.config, pins) for study in needs.studies.values() if (pins := study.read().pins) is not None]
    assets = AssetStore(paths.assets).finished()
    images = {sha256 for _, pins in studies for sha256 in (pins.dataset_sha256, pins.shown_sha256)}
    made_of = [asset.inputs for asset in assets if asset.sha256 in images]  # those of a test split are the same
    for asset in assets:
        kind = asset.folder.name.rpartition("-")[0]
        if not (asset.inputs in made_of or any(_is_needed(asset, kind, study, pins) for study, pins in studies)):
            yield asset.folder, f"{kind} that no study has"


def _is_needed(asset: Asset, kind: str, study: Study, pins: AssetPins) -> bool:
    """Return whether a study needs an asset that is not its images: its teacher's, or found by a network's name.

    Layout, steps and weights are small, and kept for every study of such a network, whatever else they were found with.
    """
    students = study.hyperparameters.words("architecture")
    if kind == "layout":
        return bool(asset.inputs["teacher"] == study.teacher.architecture)
    if kind == "step":
        return asset.inputs["architecture"] in students
    if kind == "weights":
        begin = [*students * (pins.weights_sha256 is not None), study.teacher.weights and study.teacher.architecture]
        return asset.inputs["network"] in begin
    if asset.inputs.get("dataset") not in (None, pins.dataset_sha256, pins.shown_sha256):
        return False
    # Of several teachers a study pins one hash alone, which no single one has.
    return study.teacher.n_networks > 1 or pins.teacher_sha256 in json.dumps([asset.inputs, asset.facts])
