"""What commit 5bf4ffa wrote, today's code opens: a study file, its database, its confirmation and its assets.

`5bf4ffa.tar.xz` holds `old.yaml`, a search of 6 trials on the digits with the smallest teacher, as that commit ran it
(3 COMPLETE, 3 PRUNED), its confirmation, and after both, told through that commit's protocol: a FAIL, a trial that
was given back and WAITS, and one that a host holds which is gone.
"""

import io
import json
import sys
import tarfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import igkd_hpo
from igkd_hpo.cli.app import main
from igkd_hpo.config.reading import read_study

ARCHIVE = Path(__file__).with_name("5bf4ffa.tar.xz")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that it was run in."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("IGKD_HPO_LEASE_SECONDS", "2")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    """What a command prints, run in this process."""
    out = io.StringIO()
    with (
        patch.object(sys, "argv", ["igkd-hpo", *arguments]),
        redirect_stdout(out),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert ended.value.code == 0
    return out.getvalue()


def read(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """The assets' files, by when they were written."""
    assets = (path for path in (folder / "storage/assets").rglob("*") if path.is_file())
    kept = (path for path in assets if path.parent.name not in {"verified", "locks", "references"})
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}


def test_its_study_is_shown(folder: Path) -> None:
    search, confirmation = read("status")
    assert (search["name"], search["n_trials"], search["stopped"]) == ("old", 8, None)
    states = {"complete": 3, "pruned": 3, "infeasible": 0, "fail": 1, "running": 1, "waiting": 1}
    assert search["counts"] == states
    assert (confirmation["name"], confirmation["confirms"], confirmation["finished"]) == ("old-confirm", "old", True)
    best = read("best", "old")
    assert (best["study"], best["validation_accuracy"]) == ("old", search["best_accuracy"])


def test_its_best_is_exported_and_read_again(folder: Path) -> None:
    run("export", "old", "-o", "best.yaml")
    exported = read_study(folder / "best.yaml")
    assert (exported.name, exported.is_search) == ("old-best", False)
    assert run("validate", "best.yaml")


def test_it_goes_on_with_the_assets_that_are_there(folder: Path) -> None:
    before = content(folder)
    igkd_hpo.launch("old.yaml", trials=8, engine="in_process", progress=False)
    (search, _) = read("status")
    counts = search["counts"]
    assert (search["finished"], counts["complete"] + counts["pruned"]) == (True, 8)
    assert (counts["fail"], counts["running"], counts["waiting"]) == (1, 0, 0)
    assert content(folder) == before
