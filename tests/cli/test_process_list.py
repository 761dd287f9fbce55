"""No password in the process list."""

import os
import subprocess
import sys

import psutil
import pytest

from igkd_hpo.cli.process_list import without_password
from igkd_hpo.errors import ExitCode
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.storage_url import mask

SECRET = "postgresql+psycopg://ann:s3cret@host/studies"
MASKED = "postgresql+psycopg://ann:***@host/studies"
PLAIN = "postgresql+psycopg://ann@host/studies"
QUERY = f"{PLAIN}?password=s"


@pytest.mark.parametrize(
    ("given", "kept", "url"),
    [
        (["launch", "--storage", SECRET, "--workers", "2"], ["launch", "--storage", MASKED, "--workers", "2"], SECRET),
        (["launch", f"--storage={SECRET}"], ["launch", f"--storage={MASKED}"], SECRET),
        (["best", "--storage", f"{PLAIN}?password=s"], ["best", "--storage", f"{PLAIN}?password=%2A%2A%2A"], QUERY),
        (["best", "--storage", PLAIN, "--storage", SECRET], ["best", *["--storage", MASKED] * 2], SECRET),
        (["best", "--storage", SECRET, "--storage", PLAIN], ["best", *["--storage", PLAIN] * 2], PLAIN),
        (["best", "--storage", PLAIN], ["best", "--storage", PLAIN], None),
        (["best", "--storage", "sqlite:///a.db"], ["best", "--storage", "sqlite:///a.db"], None),
        (["best", "--storage"], ["best", "--storage"], None),
        (["best", "--storage", "postgresql://ann:s3cret@host:port/x"],) * 2 + (None,),
    ],
)
def test_only_a_url_with_a_password_is_masked(given: list[str], kept: list[str], url: str | None) -> None:
    assert without_password(given) == (kept, url)


def test_a_running_command_shows_no_password(postgresql_url: str) -> None:
    open_storage(postgresql_url, create=True).engine.dispose()
    url = postgresql_url.replace("postgres:@", "postgres:s3cret@")  # this server trusts its socket, whatever one says
    assert url != postgresql_url
    command = [sys.executable, "-m", "igkd_hpo", "dashboard", "--storage", url, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        ready = process.stderr.readline()
        running = psutil.Process(process.pid)
        arguments, environment = running.cmdline(), running.environ()
        process.terminate()
        process.communicate(timeout=30)
    assert "dashboard at http://127.0.0.1" in ready
    assert arguments[1:] == ["-m", "igkd_hpo", "dashboard", "--storage", mask(url), "--port", "0"]
    assert "IGKD_HPO_STORAGE" not in environment


def test_a_url_of_the_flag_is_not_taken_for_one_of_a_variable() -> None:
    command = [sys.executable, "-m", "igkd_hpo", "best", "--storage", SECRET.replace("host", "localhost:1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == ExitCode.STORAGE
    assert "IGKD_HPO_STORAGE" not in done.stderr
    assert "s3cret" not in done.stderr
