"""Hosts that share a database and a remote folder, and no other."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from igkd_hpo.engines.local.fork_server import ForkServer
from tests.cli.conftest import STUDY, Workspace, wait_until


@dataclass
class Host(Workspace):
    """A working directory of its own, and the remote folder."""

    remote: str = ""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"IGKD_HPO_REMOTE": self.remote}


def test_a_host_without_images_ends_the_trial_of_one_that_died(
    workspace: Workspace, one_fork_server: ForkServer, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    one = Host(workspace.folder, workspace.url, workspace.started, f"file://{remote}")
    other = Host(tmp_path / "other", workspace.url, remote=one.remote)
    other.folder.mkdir()
    one.write(STUDY.replace("epochs: 4}", "epochs: 100}").replace("[student, kd_ig]", "[student]"))
    launched = one.start("launch", "study.yaml", "--workers", "1", "--trials", "1", asking=one_fork_server)
    wait_until(lambda: list(remote.glob("checkpoints/tiny/*/*.pt")), "a copy of a checkpoint")
    held = one.leases()[0]
    for pid in (launched.pid, held["worker_pid"], held["trial_pid"]):
        os.kill(pid, signal.SIGKILL)
    said = other.here("worker", "tiny")
    assert "of assets fetched from" in said.stdout + said.stderr
    trials = other.checked_to_end(1)
    assert [trial.user_attrs["attempts"] for trial in trials] == [2]
    (log,) = (other.folder / "storage" / "logs" / "tiny").glob("trial-00000-attempt-002.log")
    assert "going on after epoch" in log.read_text()
    assert not list(remote.glob("checkpoints/tiny/*/*.pt"))
    assert not [path for path in (other.folder / "storage" / "assets").iterdir() if path.name.endswith(".partial")]
