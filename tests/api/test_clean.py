"""`clean` finds what nothing needs, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock

from igkd_hpo.api import clean as cleaning
from igkd_hpo.api.clean import Leftovers, clean
from igkd_hpo.api.removal import plan_removal, remove
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.errors import UsageError
from igkd_hpo.search.artifacts import attach_pictures, written_pictures
from igkd_hpo.search.lease_table import drop_leases_of_study
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, study_names
from igkd_hpo.settings import Paths
from tests.fixtures.studies import *  # noqa: F403
from tests.fixtures.studies import Run


def made(paths: Paths, kind: str, **inputs: object) -> Asset:
    with AssetStore(paths.assets).build(kind, inputs, SilentProgress()) as draft:
        draft.write("content", f"{kind} {inputs}".encode())
        return draft.commit({"sha256": str(inputs.get("weights"))})


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 5000)
    return path


def grow_old(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


@pytest.fixture
def needed(paths: Paths, storage: SharedStorage) -> list[Asset]:
    """The assets that the study needs; the database makes their folder."""
    data, test = made(paths, "dataset", name="digits"), made(paths, "test-split", name="digits")
    teacher = made(paths, "teacher", dataset=data.sha256, weights="e" * 64)
    step = made(paths, "step", architecture="mobilenet_v2")
    return [data, test, teacher, made(paths, "maps", dataset=data.sha256, weights="e" * 64), step]


@pytest.fixture
def study(storage: SharedStorage, study_file: Study, needed: list[Asset]) -> SearchStudy:
    """A study with two trials to run; `run` runs them."""
    pins = AssetPins(dataset_sha256=needed[0].sha256, teacher_sha256="e" * 64)
    return create_or_open(storage, study_file, n_trials=2, pins=pins)


def names(paths: Paths) -> set[str]:
    grow_old(paths.root)
    return {leftover.path.relative_to(paths.root).as_posix() for leftover in clean().old}


def test_what_a_study_needs_stays(study: SearchStudy, paths: Paths, run: Run) -> None:
    claim = run(0.5, end="leave")
    touch(paths.checkpoint(study.name, claim.number, 1))
    touch(paths.trial_log(study.name, claim.number, 1))
    touch(paths.trained("any", "f" * 64, 0) / "student.pt")
    touch(paths.test_split_log)
    with written_pictures(paths, {"curve.png": b"PNG"}) as written:
        attach_pictures(study.storage, claim.trial_id, paths, written)
    assert names(paths) == set()


def test_what_nothing_needs_is_found_and_removed(
    study: SearchStudy, needed: list[Asset], paths: Paths, run: Run
) -> None:
    data = made(paths, "dataset", name="cifar10")
    old = [data, made(paths, "maps", dataset=data.sha256, weights="e" * 64)]
    old.append(made(paths, "teacher", dataset=needed[0].sha256, weights="d" * 64))
    old.append(made(paths, "step", architecture="timm/lcnet_050"))
    gone = {asset.folder.relative_to(paths.root).as_posix() for asset in old}
    for number, accuracy in enumerate((0.5, 0.7)):
        run(accuracy)
        touch(paths.checkpoint(study.name, number, 1))
        touch(paths.trial_log(study.name, number, 1))
    touch(paths.checkpoint("deleted", 0, 1))
    touch(paths.worker_log("deleted", "0"))
    touch(paths.artifacts / "of-a-deleted-trial")
    touch(paths.artifacts / ".upload-abc" / "curve.png")
    touch(paths.checkpoints / study.name / "trial-00001" / ".attempt-001.pt.4711")
    touch(paths.assets / "maps-0123.partial" / "maps.npy")
    touch(paths.root / ".ray-0123456789abcdef")
    gone |= {
        ".ray-0123456789abcdef",
        f"checkpoints/{study.name}/trial-00000",
        f"checkpoints/{study.name}/trial-00001/.attempt-001.pt.4711",
        f"logs/{study.name}",
        "checkpoints/deleted",
        "logs/deleted",
        "artifacts/of-a-deleted-trial",
        "artifacts/.upload-abc",
        "assets/maps-0123.partial",
    }
    now = clean()
    assert now.old == [], "all of it is of this hour"
    assert now.young
    assert 3500 < now.seconds <= 3600
    assert names(paths) == gone
    assert all((paths.root / name).exists() for name in gone)
    removed = clean(remove=True).old
    assert sum(leftover.size for leftover in removed) > 0
    assert not any((paths.root / name).exists() for name in gone)
    assert all(asset.folder.exists() for asset in needed)
    assert paths.checkpoint(study.name, 1, 1).exists()
    assert clean() == Leftovers(old=[], young=[], seconds=0)


def test_a_study_that_cannot_be_read_keeps_what_may_be_its(study: SearchStudy, paths: Paths) -> None:
    made(paths, "dataset", name="cifar10")
    touch(paths.checkpoint(study.name, 7, 1))
    study.storage.set_study_user_attr(study.study_id, "n_trials", "many")
    assert names(paths) == set()


@pytest.mark.parametrize("busy", ["a trial", "an asset"])
def test_nothing_is_removed_while_something_runs(
    study: SearchStudy, paths: Paths, run: Callable[..., object], busy: str
) -> None:
    touch(paths.checkpoint("deleted", 0, 1))
    lock = FileLock(paths.assets / "locks" / "maps-1.lock")
    if busy == "a trial":
        run(0.5, end="leave")
    else:
        lock.acquire()
    assert names(paths) == {"checkpoints/deleted"}
    with pytest.raises(UsageError, match="then clean"):
        clean(remove=True)
    assert paths.checkpoint("deleted", 0, 1).exists()
    lock.release()


def test_a_renamed_study_keeps_the_weights_of_its_best_also_when_it_was_launched_again(
    study: SearchStudy, paths: Paths, run: Run
) -> None:
    for number, accuracy in enumerate((0.7, 0.5)):
        run(accuracy)
        touch(paths.checkpoint(study.name, number, 1))
    storage = study.storage
    optuna.copy_study(from_study_name=study.name, from_storage=storage, to_storage=storage, to_study_name="renamed")
    optuna.delete_study(study_name=study.name, storage=storage)
    assert names(paths) == {"checkpoints/digits/trial-00001"}
    renamed = SearchStudy(storage, "renamed")
    create_or_open(storage, renamed.config, n_trials=2, pins=None)
    assert names(paths) == {"checkpoints/digits/trial-00001"}


def test_what_a_launch_takes_up_while_it_is_cleaned_stays(
    study: SearchStudy, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(paths, "dataset", name="cifar10")
    removable = touch(paths.checkpoint("deleted", 0, 1))
    assert len(names(paths)) == 2
    look = cleaning._check_idle

    def look_and_launch(*arguments: Any) -> None:
        look(*arguments)
        AssetStore(paths.assets).open("dataset", {"name": "cifar10"})

    monkeypatch.setattr(cleaning, "_check_idle", look_and_launch)
    assert [leftover.path.name for leftover in clean(remove=True).old] == ["deleted"]
    assert not removable.exists()
    assert AssetStore(paths.assets).open("dataset", {"name": "cifar10"}).folder.exists()


def test_a_deleted_study_takes_its_files_and_leaves_what_is_shared(
    study: SearchStudy, needed: list[Asset], study_file: Study, paths: Paths, run: Run
) -> None:
    other = create_or_open(study.storage, study_file.model_copy(update={"name": "other"}), n_trials=2, pins=None)
    for one in (study, other):
        touch(paths.checkpoint(one.folder, 0, 1))
        touch(paths.trial_log(one.folder, 0, 1))
    with written_pictures(paths, {"curve.png": b"PNG"}) as written:
        attach_pictures(study.storage, run(0.4, end="leave").trial_id, paths, written)
    with pytest.raises(UsageError, match="runs on"):
        plan_removal("digits")
    with study.transaction() as connection:
        drop_leases_of_study(connection, study.study_id)
    assert len(list(paths.artifacts.iterdir())) == 1
    planned = plan_removal("digits")
    assert planned.about.startswith("digits (2 trials)")
    assert remove(planned) > 10_000
    assert not (paths.checkpoints / "digits").exists()
    assert not (paths.logs / "digits").exists()
    assert list(paths.artifacts.iterdir()) == []
    assert paths.checkpoint("other", 0, 1).exists()
    assert paths.trial_log("other", 0, 1).exists()
    assert all(asset.folder.exists() for asset in needed)


def test_a_folder_that_a_study_of_another_database_has_stays(
    study: SearchStudy, study_file: Study, paths: Paths, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/second.db"
    second = open_storage(url, create=True)
    create_or_open(second, study_file, n_trials=2, pins=None)
    touch(paths.checkpoint("digits", 0, 1))
    remove(plan_removal("digits", storage=url))
    assert study_names(second) == []
    assert paths.checkpoint("digits", 0, 1).exists()
