"""A trial's pictures in Optuna's artifact store."""

from pathlib import Path

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta

from igkd_hpo.search.artifacts import attach_pictures, written_pictures
from igkd_hpo.search.storage import open_storage
from igkd_hpo.settings import Paths


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/study.db", create=True))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(root=tmp_path / "storage")


def attach(study: optuna.Study, trial_id: int, paths: Paths, pictures: dict[str, bytes]) -> None:
    with written_pictures(paths, pictures) as written:
        attach_pictures(study._storage, trial_id, paths, written)


def kept(study: optuna.Study, trial: optuna.Trial, paths: Paths) -> dict[str, bytes]:
    metas = get_all_artifact_meta(study.trials[trial.number], storage=study._storage)
    assert all(meta.mimetype == "image/png" for meta in metas)
    assert len(metas) == len({meta.filename for meta in metas})
    return {meta.filename: (paths.artifacts / meta.artifact_id).read_bytes() for meta in metas}


def test_pictures_are_found_by_their_trial(study: optuna.Study, paths: Paths) -> None:
    first, second = study.ask(), study.ask()
    attach(study, first._trial_id, paths, {"curve.png": b"1", "overlays.png": b"2"})
    attach(study, second._trial_id, paths, {"curve.png": b"3"})
    assert kept(study, first, paths) == {"curve.png": b"1", "overlays.png": b"2"}
    assert kept(study, second, paths) == {"curve.png": b"3"}


def test_the_next_attempt_replaces_what_the_last_one_left(study: optuna.Study, paths: Paths) -> None:
    trial = study.ask()
    attach(study, trial._trial_id, paths, {"curve.png": b"old"})
    # The worker died between the line in the database and the file: the line points at nothing.
    for file in paths.artifacts.iterdir():
        file.unlink()
    attach(study, trial._trial_id, paths, {"curve.png": b"new", "overlays.png": b"2"})
    assert kept(study, trial, paths) == {"curve.png": b"new", "overlays.png": b"2"}
    assert len(list(paths.artifacts.iterdir())) == 2


def test_a_folder_that_cannot_be_written_leaves_the_trial_alone(study: optuna.Study, paths: Paths) -> None:
    trial = study.ask()
    paths.root.mkdir()
    paths.artifacts.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="artifacts"):
        attach(study, trial._trial_id, paths, {"curve.png": b"1"})
    assert not get_all_artifact_meta(study.trials[0], storage=study._storage)


def test_an_ended_trial_keeps_what_it_has(study: optuna.Study, paths: Paths) -> None:
    trial = study.ask()
    attach(study, trial._trial_id, paths, {"curve.png": b"1"})
    study.tell(trial, 0.5)
    attach(study, trial._trial_id, paths, {"curve.png": b"2", "overlays.png": b"3"})
    assert kept(study, trial, paths) == {"curve.png": b"1"}
    assert len(list(paths.artifacts.iterdir())) == 1
