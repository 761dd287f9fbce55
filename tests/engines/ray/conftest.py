"""A real Ray cluster on this machine: a head without room for workers, and one node with a home of its own."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from tests.cli.conftest import Workspace, prepared, workspace

__all__ = ["prepared", "workspace"]


@dataclass(frozen=True)
class Cluster:
    """The cluster, and the folder that holds its nodes' homes."""

    address: str
    folder: Path
    made: Any

    def add(self, name: str) -> Any:
        """Start a node with one CPU, which is another host for leases and sees another home folder."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        there = {"IGKD_HPO_HOST": name, "HOME": str(home)}
        return self.made.add_node(num_cpus=1, object_store_memory=100_000_000, env_vars=there)

    def processes(self, name: str) -> list[psutil.Process]:
        """Every process of a node, whoever started it."""
        return [process for process in psutil.process_iter() if _environment(process).get("IGKD_HPO_HOST") == name]

    def kill(self, name: str) -> None:
        """End a node as a power cut does: all its processes at once."""
        for process in self.processes(name):
            process.send_signal(signal.SIGKILL)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has just gone
        return {}


@pytest.fixture(scope="session")
def cluster(repository: Path) -> Iterator[Cluster]:
    """Started when first needed; skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'igkd-hpo[ray]'")
    # Not below pytest's folder: a socket's path may have 107 bytes.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PYTHONPATH": str(repository),
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",
        }.items():
            patch.setenv(name, value)
        terminated = signal.getsignal(signal.SIGTERM)
        from ray.cluster_utils import Cluster as RayCluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        made = RayCluster(initialize_head=True, head_node_args=head)
        signal.signal(signal.SIGTERM, terminated)
        try:
            cluster = Cluster(address=made.address, folder=Path(folder), made=made)
            cluster.add("near")
            yield cluster
        finally:
            made.shutdown()


@pytest.fixture
def on_postgresql(workspace: Workspace, postgresql_url: str) -> Workspace:
    """The tiny study's folder, with a database that all nodes reach."""
    workspace.database = postgresql_url
    return workspace
