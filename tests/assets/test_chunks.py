"""Several processes share the work: the same numbers in the same order, and no process is left behind."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from igkd_hpo.assets import attribution_maps, chunks, study_assets
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teachers import prepare_teachers
from igkd_hpo.errors import AssetError

from .conftest import make_study

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("images", "own_teacher")
# In a process that shares the work a chunk goes wrong: the first process ends once there is a second, which is busy for
# ever.
DANGEROUS = """
    import multiprocessing, os, signal, time
    from pathlib import Path

    import numpy as np

    def prepare(study, dataset, teachers, device):
        def compute(rows):
            Path(f"row-{rows.start}").write_text(str(os.getpid()))
            if multiprocessing.parent_process() is not None:
                try:
                    with open("first", "x") as file:
                        file.write(str(os.getpid()))
                except FileExistsError:
                    Path("part").write_text(str(os.getpid()))
                    Path("part").rename("second")
                    time.sleep(600)
                while not Path("second").exists():
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            return {"row": np.arange(rows.start, rows.stop)}
        return compute
"""


# Here it ends with its second chunk, when the parent has not yet seen what became of its first.
SOON_DEAD = """
    import multiprocessing, os, signal, time
    from pathlib import Path

    import numpy as np

    def prepare(study, dataset, teachers, device):
        done = []

        def compute(rows):
            if multiprocessing.parent_process() is not None:
                while done and not Path("waits").exists():
                    time.sleep(0.01)
                if done:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(rows)
            elif rows.start == 40:
                while not said_something():
                    time.sleep(0.01)
                Path("waits").touch()
                while multiprocessing.active_children():
                    time.sleep(0.01)
            return {"row": np.arange(rows.start, rows.stop)}
        return compute
"""


@pytest.fixture
def unhurried(monkeypatch):
    """After each chunk of ours another process gets to say something, so that each takes part however slow it is."""
    wait = chunks.connection.wait
    monkeypatch.setattr(chunks.connection, "wait", lambda pipes, timeout=None: wait(pipes) if pipes else [])
    return wait


@pytest.mark.usefixtures("unhurried")
def test_maps_made_by_several_are_those_made_by_one(settings, progress, tmp_path, monkeypatch):
    study = make_study(teacher={"logits": "online"})
    monkeypatch.setattr(attribution_maps, "_CHUNK", {"cpu": 7})
    alone = replace(settings, paths=replace(settings.paths, root=tmp_path / "alone"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    prepare_assets(study, alone, device="cpu", progress=progress)
    monkeypatch.setattr(chunks, "_LONG", 0.0)
    monkeypatch.setattr(study_assets, "devices_for", lambda device: [CPU, CPU])
    theirs = []
    receive = chunks._receive
    monkeypatch.setattr(chunks, "_receive", lambda *given: theirs.append(receive(*given)) or theirs[-1])
    prepare_assets(study, settings, device="cpu", progress=progress)
    torch.set_num_threads(before)
    assert 2 <= len([columns for columns in theirs if columns]) <= 5
    assert open_assets(study, settings).maps.sha256 == open_assets(study, alone).maps.sha256
    assert progress.tasks["attribution maps"] == (45, 45)
    assert multiprocessing.active_children() == []


@pytest.fixture
def danger():
    """How chunks do harm."""
    return DANGEROUS


@pytest.fixture
def dangerous(danger, tmp_path, settings, store, progress, monkeypatch):
    """Arguments of `compute_chunks`, with a maker of which some chunks do harm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dangerous.py").write_text(textwrap.dedent(danger))
    import dangerous

    study = make_study()
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    teachers = prepare_teachers(study, dataset, settings, store, device=CPU, progress=progress)
    yield {"make": dangerous.prepare, "study": study, "dataset": dataset, "teachers": teachers, "settings": settings}
    del sys.modules["dangerous"]


@pytest.mark.usefixtures("unhurried")
def test_rows_come_in_order_and_a_process_that_is_killed_is_told_and_the_others_end(dangerous, monkeypatch, tmp_path):
    monkeypatch.setattr(chunks, "_LONG", 0.0)
    rows = [slice(start, start + 10) for start in range(0, 100, 10)]
    seen = []
    with (
        closing(chunks.compute_chunks(chunks=rows, devices=[CPU, CPU, CPU], **dangerous)) as parts,
        pytest.raises(AssetError, match=r" -9\b"),
    ):
        seen.extend(int(part["row"][0]) for part in parts)
    assert {(tmp_path / f"row-{start}").read_text() for start in (0, 10)} == {str(os.getpid())}
    killed, busy = (int((tmp_path / name).read_text()) for name in ("first", "second"))
    assert len({os.getpid(), killed, busy}) == 3
    assert not psutil.pid_exists(busy)  # it had 600 seconds to go
    assert multiprocessing.active_children() == []
    assert seen == [0, 10]


@pytest.mark.parametrize("danger", [SOON_DEAD])
def test_a_process_that_is_killed_before_it_is_given_more_is_told(dangerous, unhurried, monkeypatch):
    pipes = []
    receive = chunks._receive
    monkeypatch.setattr(chunks, "_receive", lambda pipe, process: pipes.append(pipe) or receive(pipe, process))
    sys.modules["dangerous"].said_something = lambda: unhurried(pipes, 0)
    monkeypatch.setattr(chunks, "_LONG", 0.0)
    rows = [slice(start, start + 10) for start in range(0, 100, 10)]
    with pytest.raises(AssetError, match=r" -9\b"):
        list(chunks.compute_chunks(chunks=rows, devices=[CPU, CPU], **dangerous))
    assert multiprocessing.active_children() == []


def test_work_that_is_soon_done_starts_no_process(dangerous, tmp_path):
    rows = [slice(0, 10), slice(10, 20), slice(20, 30)]
    parts = list(chunks.compute_chunks(chunks=rows, devices=[CPU, CPU], **dangerous))
    assert [part["row"][0] for part in parts] == [0, 10, 20]
    assert {(tmp_path / f"row-{start}").read_text() for start in (0, 10, 20)} == {str(os.getpid())}


PARENT = """
    import sys
    from pathlib import Path
    import torch
    import dangerous
    from igkd_hpo.assets import chunks
    from igkd_hpo.config.reading import study_from_json
    from igkd_hpo.settings import Paths, Settings

    root = Path(sys.argv[1])
    settings = Settings(
        paths=Paths(root=root / "storage"), storage_url="", data_root=root, allow_import=frozenset({"own_teacher"})
    )
    study = study_from_json(sys.argv[2], source="test")
    rows = [slice(start, start + 10) for start in range(0, 100, 10)]
    cpu = torch.device("cpu")
    compute = dangerous.prepare(study, None, None, cpu)
    wait = chunks.connection.wait
    chunks.connection.wait = lambda pipes, timeout=None: wait(pipes)
    for _ in chunks._share(dangerous.prepare, compute, rows, study=study, settings=settings, others=[cpu]):
        pass
"""


def waited(condition) -> bool:
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_is_the_parents_and_when_it_is_killed_nobody_is_left(dangerous, tmp_path):
    mark = tmp_path / "first"
    script = tmp_path / "without_a_guard.py"
    script.write_text(textwrap.dedent(PARENT))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), dangerous["study"].model_dump_json()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).resolve().parents[2]}{os.pathsep}{tmp_path}"},
    )
    assert waited(lambda: mark.exists() and mark.read_text())
    child = psutil.Process(int(mark.read_text()))
    blocked = int(re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{child.pid}/status").read_text())[1], 16)
    assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert waited(lambda: not alive(child))
