"""A small study in a real database, run through the leases, with accuracies made up instead of trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.study import Study
from igkd_hpo.search.artifacts import upload_trial_pictures
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import AssetPins, SearchStudy, create_or_open
from igkd_hpo.settings import Paths

EXECUTION = {
    "device": "cpu",
    "threads": 1,
    "precision": "float32",
    "memory_format": "channels_last",
    "compile": "none",
    "torch": "2.11.0",
}

COST = {
    "parameters": 140_234,
    "compression_factor": 4.1,
    "macs": 9_000_000,
    "size_kb": 547.8,
    "latency_ms": 2.5,
    "latency_ms_p95": 3.5,
    "latency_of": "1 image of 8x8, torch 2.11.0, float32, 1 CPU thread, 100 runs after 5",
}

STUDY = """
name: digits
dataset: {name: digits}
teacher: {width: 0.5, epochs: 15}
training: {epochs: 3, seed: 40}
hyperparameters:
  temperature: {type: float, low: 1.0, high: 8.0}
  alpha: {type: float, low: 0.0, high: 1.0}
  overlay_probability: 0.1
  overlay_strength: {type: float, low: 0.05, high: 0.95}
  learning_rate: {type: float, low: 1.0e-3, high: 1.0, log: true}
  batch_size: {type: categorical, choices: [64, 128]}
n_trials: 6
controls: [student, kd]
"""

Run = Callable[..., Claim]


@pytest.fixture(scope="session")
def study_file() -> Study:
    return parse_study(STUDY, source="study.yaml")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no study; making the tables takes a second, copying the file does not."""
    path = tmp_path_factory.mktemp("empty") / "igkd_hpo.db"
    open_storage(f"sqlite:///{path}", create=True).engine.dispose()
    return path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(root=tmp_path / "storage")


@pytest.fixture
def storage(paths: Paths, empty_database: Path) -> SharedStorage:
    paths.root.mkdir()
    shutil.copy(empty_database, paths.database)
    return open_storage(f"sqlite:///{paths.database}", create=False)


@pytest.fixture
def searched(storage: SharedStorage, paths: Paths) -> SharedStorage:
    """A study with two completed trials and one that runs, which has a picture."""
    study = optuna.create_study(storage=storage, study_name="digits", direction="maximize")
    for value in (0.4, 0.6):
        trial = study.ask()
        trial.suggest_float("alpha", 0, 1)
        study.tell(trial, value)
    running = study.ask()
    upload_trial_pictures(storage, running._trial_id, paths, {"curve.png": b"\x89PNG"})
    return storage


@pytest.fixture
def study(storage: SharedStorage, study_file: Study) -> SearchStudy:
    pins = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
    return create_or_open(storage, study_file, n_trials=None, pins=pins)


@pytest.fixture
def run(study: SearchStudy) -> Run:
    """Claims the next trial, reports the accuracies, and ends it as told: complete, prune, fail or leave (running)."""
    leases = Leases(study)
    worker = Worker(name="worker-0", process=this_process())

    def run(*accuracies: float, end: str = "complete") -> Claim:
        claim = leases.claim(worker)
        assert isinstance(claim, Claim)
        assert leases.started(claim, this_process(), "cpu")
        for epoch, accuracy in enumerate(accuracies, start=1):
            leases.report(claim, epoch=epoch, accuracy=accuracy)
        facts = {"execution": EXECUTION, **COST}
        ended = {
            "complete": lambda: leases.complete(claim, accuracies[-1], facts),
            "prune": lambda: leases.prune(claim, "below the bar", facts),
            "fail": lambda: leases.fail(claim, "ValueError: no", {}),
            "leave": lambda: True,
        }
        assert ended[end]()
        return claim

    return run
