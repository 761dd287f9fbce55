"""Studies on a real cluster lose nothing to dead drivers and nodes; what cannot run is refused before it starts."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from igkd_hpo.assets.parcel import Parcel
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.config.reading import parse_study
from igkd_hpo.engines.engine import Host, Watcher, run_slots
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.ray import engine as engine_module
from igkd_hpo.engines.ray.engine import Ray
from igkd_hpo.engines.ray.inventory import pack_assets
from igkd_hpo.engines.ray.request import Request
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Paths, Settings
from tests.cli.conftest import STUDY, Workspace
from tests.engines.ray.conftest import Cluster

TRIALS = 3
PASSWORD = "not-for-logs"  # which the server does not ask for
LONG = STUDY.replace("epochs: 4}", "epochs: 60}").replace("[student, kd_ig]", "[]")
LONG = LONG.replace("{name: median, grace_period: 1}", "{name: none}")


@dataclass
class Watched:
    """What a launch said."""

    messages: list[str] = field(default_factory=list)
    events: list[tuple[int, Event]] = field(default_factory=list)
    on_epoch: Callable[[Event], None] = lambda event: None
    on_said: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What to do when these words are said."""

    def watcher(self) -> Watcher:
        return Watcher(on_event=self._hear, on_message=self._read, on_refresh=lambda: None)

    def _read(self, text: str) -> None:
        self.messages.append(text)
        for words, act in self.on_said.items():
            if words in text:
                act()

    def _hear(self, slot: int, event: Event) -> None:
        self.events.append((slot, event))
        if event.kind == "epoch":
            self.on_epoch(event)

    def said(self, words: str) -> list[str]:
        return [text for text in self.messages if words in text]


@pytest.fixture
def settings(on_postgresql: Workspace) -> Settings:
    return Settings(
        paths=Paths(root=on_postgresql.folder / "storage"),
        storage_url=on_postgresql.url.replace("postgres:@", f"postgres:{PASSWORD}@"),
        data_root=on_postgresql.folder,
        allow_import=frozenset(),
        lease_seconds=6.0,
    )


@contextmanager
def engine_on(cluster: Cluster, settings: Settings, **options: Any) -> Iterator[tuple[Ray, Host]]:
    with Ray(address=cluster.address, **options) as engine, StopSignal() as stop:
        yield engine, Host(settings=settings, device="auto", stop=stop)


def run(engine: Ray, study: SearchStudy, host: Host, watched: Watched, *, slots: int) -> bool:
    return run_slots(engine, study, host, watched.watcher(), slots=slots)


@pytest.fixture
def own_assets(settings: Settings, prepared: Path) -> Path:
    """A copy of the assets, which a test may damage."""
    settings.paths.assets.unlink()
    shutil.copytree(prepared / "storage" / "assets", settings.paths.assets)
    return settings.paths.assets


def damage_once_packed(file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Damage a file after it was last checked here, before it is sent; what is returned mends it."""
    content = file.read_bytes()

    def pack(*arguments: Any) -> Parcel:
        parcel = pack_assets(*arguments)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return parcel

    monkeypatch.setattr(engine_module, "pack_assets", pack)
    return lambda: file.write_bytes(content)


def place_other_images(cluster: Cluster, name: str, assets: Path) -> Callable[[], object]:
    """Let a node that comes have other images under the name of the study's; what is returned removes them."""
    (images,) = assets.glob("dataset-*")
    there = cluster.folder / name / "igkd" / "storage" / "assets" / images.name
    there.mkdir(parents=True)
    (there / "manifest.json").write_text('{"files": {"train_images.npy": {"sha256": "0", "bytes": 1}}}')
    return lambda: shutil.rmtree(there, ignore_errors=True)


@pytest.mark.timeout(600)  # five starts of workers, of which three import torch
def test_a_study_outlives_its_driver_and_a_node_that_share_no_folder_with_it(
    cluster: Cluster, settings: Settings, on_postgresql: Workspace, own_assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_study(LONG, source="study.yaml")
    storage = open_storage(settings.storage_url, create=True)
    first, second = Watched(), Watched()
    second.on_said["is not that of the study"] = place_other_images(cluster, "far", own_assets)

    with engine_on(cluster, settings, folder="~/igkd") as (engine, host):
        pins = engine.prepare(config, host, SilentProgress(), None)
        study = create_or_open(storage, config, n_trials=TRIALS, pins=pins)

        def kill_driver(event: Event) -> None:
            assert engine._driver is not None
            engine._driver._process.kill()

        first.on_epoch = kill_driver
        (logits,) = own_assets.glob("logits-*/logits.npy")
        with monkeypatch.context() as patched:
            first.on_said["arrived damaged"] = damage_once_packed(logits, patched)
            with pytest.raises(IgkdError, match="is gone"):
                run(engine, study, host, first, slots=1)
        assert len(first.said("logits.npy arrived damaged")) == 1

    def replace_node(event: Event) -> None:
        """Kill the only node that works as soon as it holds a trial; the other comes only then, and must end it."""
        if not second.said("killed"):
            second.messages.append("killed")
            assert [lease.process.host for lease in Leases(study).held()] == ["near"]
            cluster.kill("near")
            cluster.add("far")

    second.on_epoch = replace_node
    with engine_on(cluster, settings, folder="~/igkd") as (engine, host):
        engine.prepare(config, host, SilentProgress(), pins)
        assert run(engine, study, host, second, slots=2)
    assert len(second.said("room for 1 of 2 workers")) == 1
    assert re.search(r"far/igkd/.* is not that of the study.* on far$", "\n".join(second.messages), re.MULTILINE)
    sent = first.said("of assets sent to") + second.said("of assets sent to")
    assert sorted(text.rpartition(" ")[2] for text in sent) == ["far", "near"], "once to each"
    assert [text for text in second.messages if re.fullmatch(r"worker \d on near is gone; .*", text)]
    trials = on_postgresql.checked_to_end(TRIALS)
    assert max(trial.user_attrs["attempts"] for trial in trials) > 1
    for trial in trials:
        assert len(trial.intermediate_values) == 60
        folder = settings.paths.trial_checkpoints(study.folder, trial.number)
        assert folder.exists(), "weights came back"
    assert len(list(settings.paths.artifacts.iterdir())) >= TRIALS
    logs = [*settings.paths.logs.rglob("*.*"), *cluster.folder.rglob("*.*")]
    assert not [path for path in logs if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert not [path for path in settings.paths.root.iterdir() if path.name.startswith(".ray-")]
    storage.engine.dispose()


def test_what_cannot_run_on_the_cluster_is_refused(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    config = parse_study(LONG, source="study.yaml")
    with engine_on(cluster, settings) as (engine, host):
        on_a_file = replace(host, settings=replace(settings, storage_url=f"sqlite:///{tmp_path}/x.db"))
        with pytest.raises(UsageError, match=r"x\.db is a file of one machine, .* has 2 nodes"):
            engine.prepare(config, on_a_file, SilentProgress(), None)
        with pytest.raises(UsageError, match="auto"):
            engine.measure(config, host)
        with pytest.raises(UsageError, match="--device cuda needs --gpus-per-worker"):
            engine.prepare(config, replace(host, device="cuda"), SilentProgress(), None)
        engine._request = Request(gpus=1)
        with pytest.raises(UsageError, match=r"--gpus-per-worker 1: .* has 0;"):
            engine.prepare(config, host, SilentProgress(), None)
    assert not (tmp_path / "x.db").exists()


def test_a_dry_run_says_what_each_node_finds(cluster: Cluster, on_postgresql: Workspace) -> None:
    on_ray = ("launch", "study.yaml", "--engine", "ray", "--address", cluster.address, "--workers", "3", "--dry-run")
    said = on_postgresql.here(*on_ray, "--folder", "~/dry").stdout
    assert re.search("^workers: 3 of 1 CPU each; room for 1, 2 wait$", said, re.MULTILINE)
    assert re.search("^node (near|far): .* database reached, .* [KM]iB of assets to send$", said, re.MULTILINE)
    assert not list(cluster.folder.glob("*/dry"))


def test_a_cluster_whose_token_is_missing_is_named(
    cluster: Cluster, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    with engine_on(cluster, settings) as (engine, host), pytest.raises(UsageError, match="RAY_AUTH_TOKEN"):
        engine.prepare(parse_study(LONG, source="study.yaml"), host, SilentProgress(), None)
