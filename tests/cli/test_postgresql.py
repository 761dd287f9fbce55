"""The main job on PostgreSQL."""

import os
import signal

import pytest

from igkd_hpo.engines.local.fork_server import ForkServer
from tests.cli.conftest import Workspace, wait_until
from tests.cli.test_search import LONG, first_epochs, longer


@pytest.fixture
def on_postgresql(workspace: Workspace, postgresql_url: str) -> Workspace:
    """The tiny study's folder, with a database of its own on a real server."""
    workspace.database = postgresql_url
    return workspace


def test_two_launches_and_a_killed_worker_end_at_exactly_n(
    on_postgresql: Workspace, one_fork_server: ForkServer
) -> None:
    on_postgresql.write(longer())
    launch = ("launch", "study.yaml", "--workers", "1", "--trials", "3")
    other = on_postgresql.start(*launch, asking=one_fork_server)
    wait_until(lambda: first_epochs(on_postgresql), "a trial with an epoch")
    (lease,) = on_postgresql.leases()
    os.kill(lease["worker_pid"], signal.SIGKILL)
    on_postgresql.here(*launch)
    output, _ = other.communicate(timeout=240)
    assert other.returncode == 0, output
    trials = on_postgresql.checked_to_end(3)
    assert max(trial.user_attrs["attempts"] for trial in trials) == 2
    assert all(len(trial.intermediate_values) == LONG for trial in trials)
    assert not (on_postgresql.folder / "storage" / "igkd_hpo.db").exists()


def test_a_server_that_is_down_is_named_without_the_password(on_postgresql: Workspace) -> None:
    url = "postgresql+psycopg://somebody:p%40ss%25word@127.0.0.1:1/studies"
    line = on_postgresql.refused_here("status", "--storage", url, code=4)
    assert "127.0.0.1:1" in line
    assert "ss%25word" not in line
    assert "p@ss%word" not in line
