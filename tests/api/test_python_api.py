"""The Python API: what a script with four lines does, and how it ends."""

import inspect
import os
import pkgutil
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

import igkd_hpo
from igkd_hpo.api.launch import dry_run
from igkd_hpo.api.source import settings_here
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.reading import parse_study, read_study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.engines.engine import SlotState
from igkd_hpo.engines.in_process import InProcessEngine
from igkd_hpo.errors import DataError
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open
from tests.cli.conftest import STUDY, Workspace

SCRIPT = """
import igkd_hpo
study = igkd_hpo.launch("study.yaml", trials=3)
print(study.best.accuracy, study.best.hyperparameters)
study.export("best.yaml")
"""


def test_a_script_of_four_lines_needs_no_guard(workspace: Workspace) -> None:
    workspace.write(SCRIPT, "script.py")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=workspace.folder,
        env=workspace.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    workspace.checked_to_end(3)
    assert "study tiny, 3 trials" in done.stderr

    study = igkd_hpo.open_study(storage=workspace.url)
    assert study.counts.finished == study.n_trials == 3
    assert done.stdout == f"{study.best.accuracy} {study.best.hyperparameters}\n"
    completed = [trial for trial in study.trials if trial.state == "COMPLETE"]
    best = max(completed, key=lambda trial: (trial.accuracy, -trial.number))
    assert (best.number, best.hyperparameters) == (study.best.number, study.best.hyperparameters)
    assert best.accuracy == best.accuracies[4] == study.best.accuracy
    assert {trial.control for trial in study.trials} == {"student", "kd_ig", None}
    assert all(trial.started < trial.ended for trial in study.trials)
    assert study.status == igkd_hpo.status(storage=workspace.url)[-1]
    assert study.confirmation is None
    assert study.summary().startswith("tiny: 3 of 3 trials finished")
    exported = igkd_hpo.validate(workspace.folder / "best.yaml").study_file
    assert exported.hyperparameters.fixed() == best.hyperparameters
    assert study.export(workspace.folder / "best.yaml").replaced
    assert study.stop() == 0, "a finished study stays as it is"
    assert study.status.stopped is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interrupt_that_says_how_to_go_on(number: signal.Signals) -> None:
    pins = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)

    class Signalled(InProcessEngine):
        def prepare(self, *_: object) -> AssetPins:
            return pins

        def poll(self) -> list[SlotState]:
            os.kill(os.getpid(), number)
            assert select.select([self._host.stop.descriptor], [], [], 10)[0]
            return []

    before = signal.getsignal(number)
    with pytest.raises(igkd_hpo.Interrupted, match=r"0 of 2 .*`igkd-hpo launch tiny`") as e:
        igkd_hpo.launch(parse_study(STUDY, source="test"), trials=2, engine=Signalled(), progress=False)
    assert isinstance(e.value, KeyboardInterrupt)
    assert e.value.signal == number
    assert signal.getsignal(number) is before
    assert {trial.state for trial in igkd_hpo.open_study("tiny").trials} == {"WAITING"}


def test_a_dry_run_of_a_finished_study_asks_for_no_time(workspace: Workspace) -> None:
    study = parse_study(STUDY, source="test")
    storage = open_storage(workspace.url, create=True)
    created = create_or_open(storage, study, n_trials=None, pins=None)
    for _ in range(study.n_trials):
        created.optuna_study.add_trial(optuna.trial.create_trial(value=0.5))
    storage.engine.dispose()
    told = dry_run(study, settings_here(), workers=1, trials=None, device="cpu", new_version=False)
    assert told.splitlines()[-1].startswith("nothing is left to run")


def test_images_that_are_not_there_are_missed_before_a_launch(workspace: Workspace) -> None:
    study = parse_study(STUDY, source="test")
    study = study.model_copy(update={"dataset": study.dataset.model_copy(update={"name": "folder", "root": "fotos"})})
    with pytest.raises(DataError):
        dry_run(study, settings_here(), workers=1, trials=None, device="cpu", new_version=False)
    (warning,) = igkd_hpo.validate(study, progress=False).warnings
    assert "fotos is not there" in warning


def test_a_launch_beside_another_one_says_so(
    workspace: Workspace, storage_with_a_worker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nothing(InProcessEngine):
        def poll(self) -> list[SlotState]:
            return [SlotState(number=0, phase="done")]

    igkd_hpo.launch(parse_study(STUDY, source="test"), engine=Nothing())
    assert f"1 worker of another launch on it already: {storage_with_a_worker} on " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("holds", "said"), [(True, "1 worker of another launch on it already: there on "), (False, "made it meanwhile")]
)
def test_a_launch_that_waited_for_anothers_assets_says_so(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], holds: bool, said: str
) -> None:
    pins = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)

    class Waited(InProcessEngine):
        def prepare(self, *_: object) -> AssetPins:
            storage = open_storage(workspace.url, create=True)
            theirs = create_or_open(storage, parse_study(STUDY, source="test"), n_trials=None, pins=pins)
            if holds:
                Leases(theirs).claim(Worker(name="there", process=this_process()))
            storage.engine.dispose()
            return pins

        def poll(self) -> list[SlotState]:
            return [SlotState(number=0, phase="done")]

    igkd_hpo.launch(parse_study(STUDY, source="test"), engine=Waited())
    assert said in capsys.readouterr().err


@pytest.fixture
def storage_with_a_worker(workspace: Workspace) -> Iterator[str]:
    """A worker's name, which holds a trial of the tiny study."""
    storage = open_storage(workspace.url, create=True)
    study = create_or_open(storage, parse_study(STUDY, source="test"), n_trials=None, pins=None)
    assert isinstance(Leases(study).claim(Worker(name="there", process=this_process())), Claim)
    yield "there"
    storage.engine.dispose()


@pytest.mark.parametrize("completed", [False, True])
def test_a_stop_that_somebody_ordered_is_no_failure(workspace: Workspace, completed: bool) -> None:
    class Stopped(InProcessEngine):
        def poll(self) -> list[SlotState]:
            if completed:
                self._source.study.optuna_study.add_trial(optuna.trial.create_trial(value=0.5))  # type: ignore[union-attr]
            igkd_hpo.open_study("tiny").stop()
            return [SlotState(number=0, phase="done")]

    with pytest.raises(igkd_hpo.StudyStopped) as stopped:
        igkd_hpo.launch(parse_study(STUDY, source="test"), engine=Stopped(), progress=False)
    assert isinstance(stopped.value, igkd_hpo.StopOrdered)
    assert stopped.value.exit_code == (0 if completed else 3)
    assert f"{int(completed)} of 8 trials" in str(stopped.value)


def test_a_study_begins_with_the_best_of_another_one(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    class One(InProcessEngine):
        def poll(self) -> list[SlotState]:
            job = self._source.claim()  # type: ignore[union-attr]
            assert job.leases.complete(job.claim, 0.5, {})
            return [SlotState(number=0, phase="done")]

    file = parse_study(STUDY, source="test").model_copy(update={"controls": ()})
    first = igkd_hpo.launch(file, engine=One(), progress=False)
    other = file.model_copy(update={"name": "other"})
    second = igkd_hpo.launch(other, start_from="tiny", engine=One(), workers=0)
    (waiting,) = second.trials
    assert waiting.state == "WAITING"
    assert "begins with trial 0 of tiny, which had 50.00 % there" in capsys.readouterr().err
    again = igkd_hpo.launch(other, start_from="tiny", engine=One(), progress=False)
    (same,) = again.trials
    assert same.hyperparameters == first.best.hyperparameters
    with pytest.raises(igkd_hpo.UsageError, match=r"no study .tyni. .*there are: tiny, other"):
        igkd_hpo.launch(other, start_from="tyni", progress=False)


@pytest.mark.parametrize("completed", [False, True])
def test_the_end_of_its_time_is_an_end_as_good_as_the_total(workspace: Workspace, completed: bool) -> None:
    class OverTime(InProcessEngine):
        def poll(self) -> list[SlotState]:
            study = self._source.study  # type: ignore[union-attr]
            if completed:
                study.optuna_study.add_trial(optuna.trial.create_trial(value=0.5))
            study.storage.set_study_user_attr(study.study_id, "deadline", 0.0)
            assert self._source.claim() is Idle.STOPPED  # type: ignore[union-attr]
            return [SlotState(number=0, phase="done")]

    class Unused(InProcessEngine):
        def start(self, *_: object, **__: object) -> None:
            raise AssertionError("no worker is started when the time is over")

    study = parse_study(STUDY, source="test")
    if not completed:
        with pytest.raises(igkd_hpo.NoCompletedTrial, match="its time was over at 1970-01-01 00:00 UTC"):
            igkd_hpo.launch(study, timeout="1h", engine=OverTime(), progress=False)
        return
    launched = igkd_hpo.launch(study, timeout="1h", engine=OverTime(), progress=False)
    assert (launched.counts.complete, launched.status.stop_planned) == (1, True)
    again = igkd_hpo.launch(study, engine=Unused(), progress=False)
    assert again.status.stopped == launched.status.stopped
    with pytest.raises(igkd_hpo.UsageError, match="--timeout: '8' is no span of time"):
        igkd_hpo.launch(study, timeout="8", progress=False)


@pytest.mark.parametrize("form", ["path", "text", "mapping", "file"])
def test_a_study_in_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    file = read_study(path)
    given = {"path": path, "text": str(path), "mapping": file.model_dump(mode="json"), "file": file}[form]
    assert to_yaml(igkd_hpo.validate(given).study_file) == to_yaml(file)  # type: ignore[arg-type]


def test_what_is_wrong_is_an_error_of_ours() -> None:
    with pytest.raises(igkd_hpo.UsageError, match=r"'digit' .*digits\?"):
        igkd_hpo.launch("digit", progress=False)
    with pytest.raises(igkd_hpo.StudyFileError, match=r"\btrials: .*n_trials\?"):
        igkd_hpo.launch({"name": "x", "trials": 3}, progress=False)
    with pytest.raises(igkd_hpo.StudyFileError, match="object is not JSON serializable"):
        igkd_hpo.validate({"name": object()})
    with pytest.raises(igkd_hpo.UsageError, match="'cuda:77'"):  # the child's error, its class
        igkd_hpo.launch("digits", device="cuda:77", progress=False)
    with pytest.raises(igkd_hpo.UsageError, match=r"'cud' .*cuda\?"):
        igkd_hpo.launch("digits", device="cud", progress=False)


def test_a_study_that_is_stopped_begins_no_trial(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/storage/igkd_hpo.db", create=True)
    found = create_or_open(storage, parse_study(STUDY, source="test"), n_trials=None, pins=None)
    study = igkd_hpo.open_study()
    assert study.stop(now=True) == 0
    assert found.read().stopped is not None
    with pytest.raises(igkd_hpo.NoCompletedTrial, match=r"tiny .*`igkd-hpo launch tiny`"):
        _ = study.best


def test_the_package_is_light_and_lists_its_names() -> None:
    program = (
        "import sys, igkd_hpo\n"
        "assert not {'torch', 'optuna', 'sqlalchemy', 'pydantic', 'rich'} & sys.modules.keys()\n"
        "assert set(igkd_hpo.__all__) <= set(dir(igkd_hpo))\n"
        "for name in igkd_hpo.__all__: getattr(igkd_hpo, name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in igkd_hpo.__all__:
        if isinstance(found := getattr(igkd_hpo, name), type) and name != "StudyFile":
            assert found.__name__ == name


def test_a_method_of_a_study_takes_what_the_function_of_its_name_takes() -> None:
    compared = []
    for name in igkd_hpo.__all__:
        function, method = getattr(igkd_hpo, name), vars(igkd_hpo.Study).get(name)
        if inspect.isfunction(function) and inspect.isfunction(method):
            taken = {one.name: (one.kind, one.default) for one in inspect.signature(function).parameters.values()}
            given = {one.name: (one.kind, one.default) for one in inspect.signature(method).parameters.values()}
            of_the_study = {"study", "storage"}
            assert {key: taken[key] for key in taken.keys() - of_the_study} == {
                key: given[key] for key in given.keys() - {"self"}
            }, name
            compared.append(name)
    assert compared == ["confirm"]


def test_no_package_takes_the_place_of_a_function() -> None:
    """Whoever imports a package inside this one sets its name there, over the function of that name."""
    inside = {module.name for module in pkgutil.iter_modules(igkd_hpo.__path__)}
    assert inside & set(igkd_hpo.__all__) == set()
