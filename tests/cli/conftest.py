"""The command line as people use it: real processes in a folder of their own, on assets that are made once."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
import sqlalchemy
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.cli.app import main
from igkd_hpo.config.reading import parse_study
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study
from igkd_hpo.settings import Paths, Settings
from tests.fixtures.forking import COMMAND

STUDY = """\
version: 1
name: tiny
dataset: {name: digits, validation_fraction: 0.2, test_fraction: 0.6}
teacher: {width: 0.25, epochs: 8}
attribution: {n_steps: 4}
augmentation: {crop_padding: 1, horizontal_flip: false}
training: {epochs: 4}
hyperparameters:
  temperature: {type: float, low: 1.0, high: 8.0}
  alpha: {type: float, low: 0.0, high: 1.0}
  overlay_probability: {type: float, low: 0.0, high: 0.5}
  overlay_strength: 0.5
  learning_rate: {type: float, low: 1.0e-3, high: 1.0, log: true}
  batch_size: 128
  layers_removed: 17   # blocks left out are cheap: an epoch takes 0.03 s of a core, with 9 of them half a second
  width: 0.25
pruner: {name: median, grace_period: 1}
n_trials: 8
controls: [student, kd_ig]
"""
PATIENCE = 120.0  # seconds that any condition may take on two busy cores


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value; fails the test when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)  # each look opens the database, and costs as much as two epochs
    pytest.fail(f"waited {PATIENCE:.0f} s in vain for {what}")


@dataclass
class Workspace:
    """A person's working directory."""

    folder: Path
    database: str | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.folder}/storage/igkd_hpo.db"

    def environment(self) -> dict[str, str]:
        # Coverage costs a quarter of a start; `here` launches the same supervisor, workers and trials with it.
        ours = ("IGKD_HPO_", "OPTUNA_", "COVERAGE_PROCESS_")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        return clean | ({"IGKD_HPO_STORAGE": self.database} if self.database else {})

    def run(self, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end and check its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "igkd_hpo", *arguments],
            cwd=self.folder,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def here(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end in this process: seconds sooner, for what needs no process of its own.

        Workers and trials are processes all the same, forked from one server for all tests: its start imports torch.
        """
        out, err = io.StringIO(), io.StringIO()
        with (
            chdir(self.folder),
            patch.dict(os.environ, self.environment()),
            patch.object(sys, "argv", ["igkd-hpo", *arguments]),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        assert ended.value.code == code, f"exit code {ended.value.code}\n{out.getvalue()}\n{err.getvalue()}"
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, asking: ForkServer | None = None) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does.

        Its trials are forked from the server `asking`; else from its own, which it starts, and ends.
        """
        program, given = ["-m", "igkd_hpo"], []
        if asking is not None:
            asking.keep_running()
            given = [asking.descriptor]
            program = ["-c", COMMAND, str(asking.descriptor)]
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            pass_fds=given,
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def refused(self, *arguments: str, code: int, **environment: str) -> str:
        """Run a command that must fail with one line; the line."""
        return self.one_line(self.run(*arguments, code=code, **environment))

    def refused_here(self, *arguments: str, code: int) -> str:
        """As `refused`, in this process."""
        return self.one_line(self.here(*arguments, code=code))

    @staticmethod
    def one_line(done: subprocess.CompletedProcess[str]) -> str:
        """The only line on standard error."""
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return lines[0]

    def write(self, text: str, name: str = "study.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def trials(self, study: str = "tiny") -> list[FrozenTrial]:
        """What the database holds now; nothing before the study is there."""
        try:
            storage = open_storage(self.url, create=False)  # never makes tables, as Optuna's own storage would
        except (UsageError, StorageError):
            return []
        try:
            return open_study(storage, study).trials()
        except UsageError:
            return []
        finally:
            storage.engine.dispose()

    def states(self, study: str = "tiny") -> dict[TrialState, int]:
        trials = self.trials(study)
        return {state: sum(trial.state == state for trial in trials) for state in TrialState}

    def leases(self) -> list[Any]:
        engine = sqlalchemy.create_engine(self.url)
        try:
            with engine.connect() as connection:
                return list(connection.execute(sqlalchemy.text("select * from igkd_hpo_leases")).mappings())
        finally:
            engine.dispose()

    def checked_to_end(self, n_trials: int, study: str = "tiny") -> list[FrozenTrial]:
        """The finished study's trials, after checking that nothing is left over."""
        states = self.states(study)
        assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == n_trials, states
        assert states[TrialState.RUNNING] == states[TrialState.WAITING] == states[TrialState.FAIL] == 0, states
        assert self.leases() == []
        return self.trials(study)


def signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """What a terminal does on Ctrl-C: the signal goes to every process of the group."""
    os.killpg(process.pid, number)


def is_running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `storage/assets` hold what the tiny study needs; made once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "prepared"
    with FileLock(shared / "prepared.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            (folder / "study.yaml").write_text(STUDY)
            Workspace(folder).here("prepare", "study.yaml")
            (folder / "done").touch()
    return folder


@pytest.fixture
def workspace(tmp_path: Path, prepared: Path) -> Iterator[Workspace]:
    """A working directory with the tiny study's file and assets; whatever was started there is ended."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "assets").symlink_to(prepared / "storage" / "assets")
    (tmp_path / "study.yaml").write_text(STUDY)
    made = Workspace(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def json_of(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON document on a command's standard output."""
    return json.loads(done.stdout)


@pytest.fixture
def settings(workspace: Workspace) -> Settings:
    """What the commands find in that folder."""
    return Settings(
        paths=Paths(root=workspace.folder / "storage"),
        storage_url=workspace.url,
        data_root=workspace.folder,
        allow_import=frozenset(),
    )


def made_up_search(workspace: Workspace, settings: Settings, text: str, *accuracies: float) -> SearchStudy:
    """A study with completed trials of these accuracies, which nobody trained: the search is not what is tested."""
    config = parse_study(text, source="study.yaml")
    assets = open_assets(config, settings)
    pins = AssetPins(dataset_sha256=assets.dataset.sha256, teacher_sha256=assets.teacher_sha256)
    study = create_or_open(open_storage(workspace.url, create=True), config, n_trials=None, pins=pins)
    leases = Leases(study)
    for accuracy in accuracies:
        claim = leases.claim(Worker(name="made up", process=this_process()))
        assert isinstance(claim, Claim)
        leases.complete(claim, accuracy, {})
    return study


def openings(settings: Settings) -> list[str]:
    """Why the test split was opened, each time."""
    log = settings.paths.test_split_log
    return [json.loads(line)["purpose"] for line in log.read_text().splitlines()] if log.exists() else []
