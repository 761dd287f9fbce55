"""`status --watch` in a real terminal."""

import os
import sys
from pathlib import Path

import pexpect

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open


def test_watching_is_left_with_ctrl_c_and_the_cursor_is_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/igkd_hpo.db"
    storage = open_storage(url, create=True)
    create_or_open(storage, read_study(builtin_studies()["digits"]), n_trials=None, pins=None)
    storage.engine.dispose()
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
    with pexpect.spawn(
        sys.executable,
        ["-m", "igkd_hpo", "status", "--watch", "--storage", url],
        env=environment | {"TERM": "xterm-256color"},
        dimensions=(24, 80),
        encoding="utf-8",
        timeout=60,
    ) as child:
        child.expect_exact("\x1b[?25l")  # the cursor goes
        child.expect_exact("digits  not running        0 of 24: 4 waiting")
        child.send("\x03")
        child.expect_exact("\x1b[?25h")
        child.expect(pexpect.EOF)
        assert "Traceback" not in child.before
        child.wait()
        assert child.exitstatus == 130
