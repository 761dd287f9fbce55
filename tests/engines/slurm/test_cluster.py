"""Studies on a real Slurm of two nodes: what becomes of trials when time, tasks or nodes end."""

import os
import re
import shutil
from collections.abc import Iterator

import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url

from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import open_study
from tests.api.conftest import prepared, workspace
from tests.cli.conftest import Workspace, json_of, wait_until
from tests.cli.test_search import LONG, first_epochs, longer
from tests.fixtures.slurm import Cluster, two_nodes

__all__ = ["prepared", "workspace"]
pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("WITH_SLURM") or os.geteuid() != 0 or shutil.which("slurmctld") is None,
        reason="takes minutes: runs with WITH_SLURM=1, as root, where slurmctld is installed (CONTRIBUTING.md)",
    ),
    pytest.mark.timeout(900),
]
PASSWORD = "s3cret-word"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as made:
        yield made


@pytest.fixture
def user(
    workspace: Workspace, cluster: Cluster, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """A user of the cluster, in a folder that every node sees."""
    url = make_url(postgresql_url).set(password=PASSWORD).render_as_string(hide_password=False)
    workspace.database = url
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    make_environment = workspace.environment

    monkeypatch.setattr(workspace, "environment", lambda: make_environment() | {"IGKD_HPO_LEASE_SECONDS": "5"})
    workspace.write(longer())
    yield workspace
    cluster.ask("scancel", "--user=root")
    wait_until(lambda: not cluster.ask("squeue", "--noheader"), "an empty queue")
    wait_until(lambda: not left_over(cluster), "the last process")


def left_over(cluster: Cluster) -> list[psutil.Process]:
    return [process for node in ("n1", "n2") for process in cluster.processes_on(node)]


def launch(user: Workspace, *, workers: int, trials: int, sbatch: str = "--exclusive --cpus-per-task=1") -> int:
    """Submit; the job's number."""
    arguments = ("--workers", str(workers), "--trials", str(trials), f"--sbatch={sbatch}")
    said = user.here("launch", "study.yaml", "--engine", "slurm", *arguments).stderr
    (job,) = re.findall(r"submitted as job (\d+)", said)
    assert f"scancel {job}" in said
    return int(job)


def at_the_end(user: Workspace, cluster: Cluster, job: int, n_trials: int) -> list[FrozenTrial]:
    """The trials once every task has left, each with every epoch once."""
    wait_until(lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(cluster.tasks(job).values()), "the end")
    trials = user.checked_to_end(n_trials)
    assert all(sorted(trial.intermediate_values) == list(range(1, LONG + 1)) for trial in trials)
    (status,) = json_of(user.here("status", "--json"))
    assert (status["finished"], status["queued"]) == (True, {})
    return trials


def test_the_time_limit_twice_and_the_password_nowhere(user: Workspace, cluster: Cluster) -> None:
    job = launch(user, workers=2, trials=2)
    for restarts in (1, 2):
        wait_until(lambda: first_epochs(user, 2), "two trials with an epoch")
        seen = cluster.ask("scontrol", "show", "job", str(job)) + cluster.ask("squeue", "--format=%all")
        script = cluster.ask("scontrol", "write", "batch_script", f"{job}_0", "-")
        assert "IGKD_HPO_HOST" in script
        assert PASSWORD not in seen + script
        cluster.ask("scancel", "--signal=USR1", "--batch", str(job))
        wait_until(lambda: set(cluster.tasks(job).values()) == {"PENDING"}, "tasks that wait again")
        assert user.leases() == []
        (status,) = json_of(user.here("status", "--json"))
        assert sum(status["queued"].values()) == 2
        assert "2 tasks waiting in Slurm's queue" in user.here("status").stdout
        assert f"Restarts={restarts}" in cluster.ask("scontrol", "show", "job", str(job))
    trials = at_the_end(user, cluster, job, 2)
    assert [trial.user_attrs["attempts"] for trial in trials] == [3, 3]
    assert {trial.user_attrs["attempts_without_progress"] for trial in trials} == {0}
    for file in (user.folder / "storage").rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file
    assert len(list((user.folder / "storage" / "logs" / "tiny").glob("slurm-*.out"))) == 2


def test_scancel_hands_the_trials_back_and_requeues_nothing(user: Workspace, cluster: Cluster) -> None:
    job = launch(user, workers=2, trials=2)
    wait_until(lambda: first_epochs(user, 2), "two trials with an epoch")
    cluster.ask("scancel", str(job))
    wait_until(lambda: set(cluster.tasks(job).values()) == {"CANCELLED"}, "cancelled tasks")
    assert user.leases() == []
    assert [trial.state for trial in user.trials()] == [TrialState.WAITING] * 2
    assert {trial.user_attrs["attempts_without_progress"] for trial in user.trials()} == {0}
    again = launch(user, workers=2, trials=2)
    assert {trial.user_attrs["attempts"] for trial in at_the_end(user, cluster, again, 2)} == {2}


def test_tasks_that_wait_when_the_study_is_stopped_start_and_leave(user: Workspace, cluster: Cluster) -> None:
    job = launch(user, workers=4, trials=8)
    wait_until(lambda: first_epochs(user, 2), "two trials with an epoch")
    (status,) = json_of(user.here("status", "--json"))
    assert sum(status["queued"].values()) == 2
    user.here("stop", "tiny", "--now")
    wait_until(lambda: set(cluster.tasks(job).values()) == {"FAILED"}, "four tasks that left")
    shown = cluster.ask("scontrol", "show", "job", str(job))
    assert re.findall(r"ExitCode=(\S+)", shown) == ["1:0"] * 4  # a worker's code for a study that is stopped
    assert set(re.findall(r"Restarts=(\d+)", shown)) == {"0"}
    assert user.leases() == []


def test_a_node_dies(user: Workspace, cluster: Cluster) -> None:
    job = launch(user, workers=2, trials=2)
    wait_until(lambda: first_epochs(user, 2), "two trials with an epoch")
    node = cluster.node_of(job, 0)
    cluster.kill_node(node)
    try:
        trials = at_the_end(user, cluster, job, 2)
    finally:
        cluster.start_node(node)
    assert sorted(trial.user_attrs["attempts"] for trial in trials) == [1, 2]


def test_the_daemon_of_a_node_dies_and_the_task_goes_on(user: Workspace, cluster: Cluster) -> None:
    """Slurm runs the task a second time; the worker that nobody sees any more keeps its lease, and its trial."""
    user.write(longer().replace(f"epochs: {LONG}", "epochs: 1000"))
    job = launch(user, workers=1, trials=2)
    wait_until(lambda: first_epochs(user), "a trial with an epoch")
    node = cluster.node_of(job, 0)
    cluster.kill_daemon(node)
    try:
        wait_until(lambda: first_epochs(user, 2), "the second worker, on the other node")
        storage = open_storage(user.url, create=False)
        late = open_study(storage, "tiny").read().attributes["late_results"]
        storage.engine.dispose()
        user.here("stop", "tiny", "--now")
        trials = user.trials()
        wait_until(lambda: not left_over(cluster), "both workers to leave")
    finally:
        cluster.start_node(node)
    assert (late, [trial.user_attrs["attempts"] for trial in trials[:2]]) == (0, [1, 1])
