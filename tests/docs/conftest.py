"""The site, built once for all tests of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder of the built site; a warning of mkdocs fails whoever asks for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "site"
    with FileLock(shared / "site.lock"):
        if not (shared / "site.done").exists():
            built = subprocess.run(
                # Not --quiet: what is not said is not counted, and --strict fails on nothing.
                [sys.executable, "-B", "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
                cwd=repository,
                env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert built.returncode == 0, built.stdout + built.stderr
            (shared / "site.done").touch()
    return folder
