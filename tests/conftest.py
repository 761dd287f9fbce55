"""What every test gets: a clean environment, a folder of its own, one thread."""

import gc
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch reads it: pytest-xdist fills the cores already. Subprocesses inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # where a test asks for two threads, they shall sleep while they wait

# A shell ignores them in what it starts in the background, and nohup one of them; what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Processes that tests start elsewhere, and the trial processes forked by those, must write beside the others' data.
os.environ["COVERAGE_FILE"] = str(Path(__file__).resolve().parent.parent / ".coverage")

# A disk that must confirm each write is a seventh of the time of a test with a database; runs keep a few hundred MB.
if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 8 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

pytest_plugins = ["tests.fixtures.databases", "tests.fixtures.forking"]

gc.disable()  # while what is tested is imported: a second, of four


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later collection: 4 % of the suite's time."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)  # what torch, timm and ONNX bring later is looked through less often: 3 % more
    gc.enable()


settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's shell reaches a test, and what a test forgets to place lands in its own folder."""
    for name in list(os.environ):
        if name.startswith(("IGKD_HPO_", "OPTUNA_")):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
