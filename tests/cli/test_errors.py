"""Bad input: one line, the value, the remedy, the right exit code, and nothing half made left behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from igkd_hpo.config.reading import parse_study
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open
from tests.cli.conftest import STUDY, Workspace


@pytest.fixture
def bare(tmp_path: Path) -> Workspace:
    """A working directory with nothing but the tiny study's file."""
    workspace = Workspace(tmp_path)
    workspace.write(STUDY)
    return workspace


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["launch", "--workers", "-1"], 2, r"--workers -1 is below 0"),
        (["launch", "--workers", "two"], 2, r"--workers 'two' .*auto"),
        (["launch", "--trials", "0"], 2, r"--trials 0 is below 1"),
        (["launch", "digit"], 2, r"'digit' .*digits\?"),
        (["launch", "missing.yaml"], 2, r"missing\.yaml"),
        (["launch", "study.yaml", "--storage", "sqlit:///x.db"], 2, r"'sqlit'.*sqlite://\?"),
        (["launch", "study.yaml", "--storage", "postgres://u:secret@h/d"], 2, r"postgresql\+psycopg://"),
        (["launch", "study.yaml", "--storage", "postgresql://u:secret@127.0.0.1:1/d"], 4, r"127\.0\.0\.1:1"),
        (["launch", "study.yaml", "--device", "abacus"], 2, r"abacus"),
        (["prepare", "study.yaml", "--device", "cuda:77"], 2, r"cuda:77"),
        (["lunch"], 2, r"lunch.*launch"),
        (["best"], 2, r"no database .*igkd_hpo\.db"),
        (["status"], 2, r"no database"),
        (["export"], 2, r"no database"),
        (["best", "--under", "latency=5"], 2, r"'latency' is no cost .*latency_ms\?"),
        (["best", "--under", "macs=5q"], 2, r"'q' is no unit of macs .*k, M, G"),
        (["export", "--under", "watts=5"], 2, r"'watts' is no cost .*parameters, nonzero_parameters, macs, size_kb"),
        (["worker"], 2, r"no database"),
        (["worker", "--threads", "0"], 2, r"--threads 0"),
        (["dashboard"], 2, r"no database"),
        (["show"], 2, r"--maps N.*--curves.*--importance"),
        (["train", "study.yaml"], 2, r"still searches temperature, alpha"),
        (["train", "digits"], 2, r"digits still searches temperature, alpha.*export"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(bare: Workspace, arguments: list[str], code: int, expected: str) -> None:
    line = bare.refused_here(*arguments, code=code)
    assert re.search(expected, line), line
    assert "secret" not in line
    assert not list(bare.folder.glob("x.db*"))


@pytest.mark.parametrize(("arguments", "code"), [(["lunch"], 2), (["launch", "--workers", "two"], 2), (["best"], 2)])
def test_so_it_is_in_a_process_of_its_own(bare: Workspace, arguments: list[str], code: int) -> None:
    assert bare.refused(*arguments, code=code) == bare.refused_here(*arguments, code=code)


@pytest.mark.parametrize("name", ["x.json", "noext"])
def test_a_file_whose_name_is_none_of_a_study_file_is_pointed_to(bare: Workspace, name: str) -> None:
    bare.write(STUDY, name)
    create = open_storage(bare.url, create=True)
    create_or_open(create, parse_study(STUDY, source="test"), n_trials=None, pins=None)
    create.engine.dispose()
    for command in ("validate", "best"):
        assert f"write ./{name}" in bare.refused_here(command, name, code=2)
    bare.here("validate", f"./{name}")


def test_a_folder_beside_a_study_file_of_its_name_names_the_file(bare: Workspace) -> None:
    (bare.folder / "study").mkdir()
    assert "did you mean study.yaml?" in bare.refused_here("validate", "study/", code=2)


@pytest.mark.parametrize("command", ["validate", "doctor", "train", "best"])
def test_a_name_that_only_a_study_file_has_names_the_file(bare: Workspace, command: str) -> None:
    (bare.folder / "study").mkdir()
    open_storage(bare.url, create=True).engine.dispose()
    assert "write study.yaml" in bare.refused_here(command, "study", code=2)
    if command != "best":
        (bare.folder / "study.yaml").unlink()
        assert "igkd-hpo init study" in bare.refused_here(command, "study", code=2)


def test_the_ending_of_a_study_file_may_be_large(bare: Workspace) -> None:
    bare.write(STUDY, "X.YAML")
    bare.here("validate", "X.YAML")


@pytest.mark.parametrize("flags", ["", "2"])
def test_output_that_cannot_be_written_is_one_line(bare: Workspace, flags: str) -> None:
    command = [sys.executable, "-m", "igkd_hpo", "validate", "study.yaml"]
    environment = bare.environment() | {"PYTHONOPTIMIZE": flags}

    def run(stdout: int) -> tuple[int, list[str]]:
        done = subprocess.run(
            command, cwd=bare.folder, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )
        return done.returncode, done.stderr.splitlines()

    full = os.open("/dev/full", os.O_WRONLY)
    code, lines = run(full)
    os.close(full)
    assert (code, len(lines)) == (1, 1), lines
    assert "No space left on device" in lines[0]
    assert "defect" not in lines[0]
    theirs, ours = os.pipe()
    os.close(theirs)
    assert run(ours) == (1, [])  # the reader has left: head, say
    os.close(ours)


def test_a_place_that_cannot_be_written_is_named(bare: Workspace) -> None:
    (bare.folder / "storage").write_text("a file where a folder must be")
    line = bare.refused_here("launch", "study.yaml", code=2)
    assert str(bare.folder / "storage") in line


def test_all_faults_of_a_file_come_at_once(bare: Workspace) -> None:
    bare.write(STUDY.replace("n_trials", "n_trails").replace("high: 8.0", "high: 0.5"))
    done = bare.here("launch", "study.yaml", code=2)
    assert "n_trails" in done.stderr
    assert "low 1.0 is above high 0.5" in done.stderr
    assert not (bare.folder / "storage").exists()


def test_debug_shows_the_traceback(bare: Workspace) -> None:
    assert "Traceback" in bare.run("--debug", "best", code=1).stderr


def test_an_unknown_study_names_the_near_ones(workspace: Workspace) -> None:
    storage = open_storage(workspace.url, create=True)
    create_or_open(storage, parse_study(STUDY, source="test"), n_trials=None, pins=None)
    storage.engine.dispose()
    assert "tiny" in workspace.refused_here("best", "tin", code=2)
    line = workspace.refused_here("best", "tiny", code=3)
    assert "no completed trial" in line


def test_a_corrupt_asset_is_named_with_the_folder_to_delete(workspace: Workspace, prepared: Path) -> None:
    import shutil

    assets = workspace.folder / "storage" / "assets"
    assets.unlink()
    shutil.copytree(prepared / "storage" / "assets", assets)
    (table,) = (
        assets.glob("*logits*/*.npy")
        if len(list(assets.glob("*logits*/*.npy"))) == 1
        else [max(assets.glob("*logits*/*.npy"), key=lambda path: path.stat().st_size)]
    )
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    table.write_bytes(content)
    line = workspace.refused_here("launch", "study.yaml", code=1)
    assert "damaged" in line
    assert table.parent.name in line
    assert workspace.trials() == []


def test_a_teacher_that_learned_nothing_is_refused_with_its_accuracy(workspace: Workspace) -> None:
    import torch

    from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2

    torch.manual_seed(1)
    torch.save(mobilenet_v2(num_classes=10, width=0.25).state_dict(), workspace.folder / "teacher.pt")
    workspace.write(STUDY.replace("epochs: 8}", "epochs: 8, checkpoint: teacher.pt}"))
    done = workspace.here("prepare", "study.yaml", code=1)
    assert re.search(r"\d+\.\d+ ?%", done.stderr)
