"""What is wrong with a launch on Ray is found without a cluster, where it can be."""

import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import igkd_hpo
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.engines import restarts
from igkd_hpo.engines.engine import Host
from igkd_hpo.engines.ray import driver, worker_actor
from igkd_hpo.engines.ray.engine import Ray
from igkd_hpo.engines.ray.messages import NodeReport, Place, WorkerTask
from igkd_hpo.engines.ray.node import find_fault, look_around, settings_there
from igkd_hpo.engines.ray.report import describe_node, refuse_unfit, remarks
from igkd_hpo.engines.ray.worker_actor import WorkerActor
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import ExitCode, StorageError, UsageError
from igkd_hpo.settings import Settings
from tests.cli.conftest import Workspace

GOOD = NodeReport(host="b", igkd_hpo="0.1.0", torch="2.14.1")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--engine", "rya"), "ray"),
        (("--gpus-per-worker", "0.5"), "--gpus-per-worker is for --engine ray"),
        (("--address", "auto"), "--address is for --engine ray"),
        (("--engine", "ray", "--address", "ray://head:10001"), "ray://head:10001"),
        (("--engine", "ray", "--folder", "here"), "--folder here"),
        (("--engine", "ray", "--gpus-per-worker", "2"), "--gpus-per-worker 2"),
        (("--engine", "ray", "--memory-per-worker", "much"), "--memory-per-worker 'much'"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_options_that_cannot_be_are_one_line(
    tmp_path: Path, flags: tuple[str, ...], named: str, dry: tuple[str, ...]
) -> None:
    assert named in Workspace(tmp_path).refused_here("launch", "study.yaml", *flags, *dry, code=2)


@pytest.mark.parametrize("command", ["confirm", "ladder"])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--memory-per-worker", "3GiB"), "--memory-per-worker is for --engine ray"),
        (("--engine", "ray", "--address", "ray://head:10001"), "ray://head:10001"),
        (("--engine", "ray", "--cpus-per-worker", "-1"), "--cpus-per-worker -1"),
        (("--engine", "ray", "--gpus-per-worker", "2"), "--gpus-per-worker 2"),
        (("--engine", "ray", "--folder", "here"), "--folder here"),
    ],
)
def test_options_of_the_engine_reach_it_from_every_command(
    tmp_path: Path, command: str, flags: tuple[str, ...], named: str
) -> None:
    assert named in Workspace(tmp_path).refused_here(command, "digits", *flags, code=2)


def refused(address: str) -> str:
    study = read_study(builtin_studies()["digits"])
    with Ray(address=address) as engine, StopSignal() as stop:
        host = Host(settings=Settings.resolve(), device="cpu", stop=stop)
        with pytest.raises(UsageError) as raised:
            engine.prepare(study, host, SilentProgress(), None)
        if engine._driver is not None:
            engine._driver.close()
            assert engine._driver._process.returncode is not None
    return str(raised.value)


def test_no_cluster_at_an_address_is_one_line() -> None:
    pytest.importorskip("ray")
    assert refused("127.0.0.1:1").startswith("no Ray cluster is at --address 127.0.0.1:1 ")


def test_what_listens_and_is_no_cluster_is_one_line_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(driver, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"--address {address} " in refused(address)


def test_a_launch_that_runs_keeps_its_token_young() -> None:
    """By its age `clean` tells it from that of a launch that was killed."""

    class Quiet:
        def messages(self) -> list[object]:
            return []

        def close(self) -> None:
            pass

    with Ray() as engine:
        engine._driver = cast(driver.Driver, Quiet())
        token = Settings.resolve().paths.root / engine._place(Settings.resolve(), None).token
        os.utime(token, (1_700_000_000, 1_700_000_000))
        engine.poll()
        assert time.time() - token.stat().st_mtime < 3600
    assert not token.exists()


@pytest.mark.parametrize(("seconds", "code"), [(0.0, -signal.SIGKILL), (600.0, ExitCode.USAGE)])
def test_an_actor_waits_for_the_first_word_of_its_worker_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int
) -> None:
    monkeypatch.setattr(restarts, "FIRST_WORD_SECONDS", seconds)
    monkeypatch.setattr(restarts, "SILENT_LEASES", 0)  # shorter than any import
    monkeypatch.setattr(worker_actor, "_LOOK_SECONDS", 0.01)
    if seconds == 0.0:
        monkeypatch.setattr(worker_actor, "STOP_SECONDS", 0.0)
    # The worker looks for a database that is not there, and ends as soon as it is up.
    place = Place(
        settings=Settings.resolve(storage_url=f"sqlite:///{tmp_path}/nowhere.db"), folder=None, token="t", parcel=None
    )
    task = WorkerTask(
        study="s",
        study_folder="s",
        place=place,
        slot=Slot(number=0, device="cpu", threads=1),
        sender="",
        sender_root=tmp_path,
    )
    assert WorkerActor(task)._run()[0] == code


def test_a_launch_that_was_refused_waits_for_no_worker() -> None:
    with Ray() as engine:
        engine._driver = SimpleNamespace(stop=lambda: pytest.fail("nobody would answer"), close=lambda: None)  # type: ignore[assignment]
        engine.stop()


def test_a_node_with_another_version_is_refused_by_name() -> None:
    fault = find_fault("9.9")
    assert fault is not None
    with pytest.raises(UsageError, match=r"9\.9 and 1 other node"):
        refuse_unfit([GOOD, NodeReport(host="c", fault=fault), NodeReport(host="d", fault="x")])


def test_a_node_that_does_not_reach_the_database_is_refused_by_name() -> None:
    with pytest.raises(StorageError, match=r"node c .*: nobody answers"):
        refuse_unfit([GOOD, replace(GOOD, host="c", database="nobody answers")])


def test_a_node_that_cannot_use_the_remote_folder_is_refused_by_name() -> None:
    place = Place(settings=replace(Settings.resolve(), remote="dropbox://x"), folder=None, token="t", parcel=None)
    report = look_around(place, igkd_hpo.__version__)
    assert "NO REMOTE FOLDER" in describe_node(report, packed=False)
    with pytest.raises(UsageError, match=r"node \S+ and 1 other node: .*dropbox"):
        refuse_unfit([GOOD, replace(report, database=None), replace(GOOD, remote="x")])


def test_nodes_that_share_no_folder_and_have_another_torch_are_told() -> None:
    assert remarks([replace(GOOD, torch=None)], Settings.resolve()) == []
    settings = Settings.resolve(allow_import=("mine",))
    apart, code, torch = remarks([GOOD, replace(GOOD, host="c", shared=False, torch="1.0")], settings)
    assert "1 of 2 nodes do" in apart
    assert "mine" in code
    assert "1.0" in torch
    said = describe_node(replace(GOOD, shared=False, missing_bytes=3 << 20), packed=True)
    assert "3.0 MiB of assets to send" in said
    assert "assets" not in describe_node(replace(GOOD, shared=False), packed=False)


def test_a_folder_of_the_nodes_is_below_their_own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = Settings.resolve(storage_url="postgresql+psycopg://u:secret@h/d")
    place = Place(settings=settings, folder="~/igkd", token=".ray-x", parcel=None)
    assert settings_there(place).paths.root == Path("/home/somebody/igkd/storage")
    assert settings_there(replace(place, folder=None)) == settings
    assert "secret" not in repr(place)
