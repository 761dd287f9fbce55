"""Stopping a study from elsewhere, and workers that serve whatever is open."""

import re
import signal

import pytest
from optuna.trial import TrialState

from igkd_hpo.config.reading import parse_study
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open, open_study
from tests.cli.conftest import STUDY, Workspace, is_running, wait_until

# No trial of it ends by itself here.
LONG = STUDY.replace("training: {epochs: 4}", "training: {epochs: 1000}").replace(
    "pruner: {name: median, grace_period: 1}", "pruner: {name: none}"
)


def test_stop_now_ends_what_runs_and_launch_goes_on(workspace: Workspace, one_fork_server: ForkServer) -> None:
    workspace.write(LONG)
    launched = workspace.start("launch", "study.yaml", "--trials", "2", asking=one_fork_server)
    wait_until(
        lambda: [t for t in workspace.trials() if t.state == TrialState.RUNNING and t.intermediate_values], "an epoch"
    )
    (lease,) = workspace.leases()
    said = workspace.here("stop", "tiny", "--now").stderr
    assert re.fullmatch("study tiny: .*stopped .* 0 of 2 trials .* 1 trial .*", said.strip())
    assert workspace.leases() == []
    assert not is_running(lease["trial_pid"])
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == 3, output  # no trial completed
    assert "stopped with 0 of 2 trials" in output
    assert "error" not in output
    (waiting,) = (t for t in workspace.trials() if t.intermediate_values)
    assert waiting.state == TrialState.WAITING
    assert waiting.user_attrs["attempts_without_progress"] == 0

    storage = open_storage(workspace.url, create=False)
    leases, worker = Leases(open_study(storage, "tiny")), Worker(name="here", process=this_process())
    assert leases.claim(worker) is Idle.STOPPED
    workspace.here("launch", "study.yaml", "--workers", "0")
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    assert (claim.number, claim.attempt) == (waiting.number, 2)
    assert "stopped with 0 of 2" in workspace.here("stop", "tiny").stderr
    with leases.holding(claim) as held:
        assert held, "without --now a trial that runs goes on"
    storage.engine.dispose()


def finished(workspace: Workspace, study: str) -> int:
    states = workspace.states(study)
    return states[TrialState.COMPLETE] + states[TrialState.PRUNED]


def test_a_worker_without_a_study_serves_every_open_one_that_can_be_prepared(workspace: Workspace) -> None:
    storage = open_storage(workspace.url, create=True)
    elsewhere = STUDY.replace("name: tiny", "name: elsewhere").replace(
        "{name: digits, validation", "{name: folder, root: pictures, image_size: 32, validation"
    )
    short = STUDY.replace("controls: [student, kd_ig]", "controls: []").replace("n_trials: 8", "n_trials: 2")
    one, two = (short.replace("name: tiny", f"name: {name}") for name in ("one", "two"))
    for text in (elsewhere, one):
        create_or_open(storage, parse_study(text, source="test"), n_trials=None, pins=None)
    storage.engine.dispose()
    worker = workspace.start("worker")
    wait_until(lambda: finished(workspace, "one") == 2, "the first study to end")
    workspace.write(two)
    submitted = workspace.here("launch", "study.yaml", "--workers", "0").stderr
    assert re.search("2 of 2 trials .*igkd-hpo worker two", submitted)
    wait_until(lambda: finished(workspace, "two") == 2, "the second study to end")
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 143, output
    assert "nothing to do in sqlite" in output
    assert output.count("waiting for a study") <= 3, "said once for each time that it had nothing to do"
    assert "one: trial 0" in output
    assert "two: trial 0" in output
    assert output.count("study elsewhere is passed over") == 1
    assert workspace.states("elsewhere")[TrialState.RUNNING] == 0


@pytest.mark.parametrize("arguments", [("stop",), ("stop", "nothing")])
def test_stop_names_what_is_wrong(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    line = workspace.refused_here(*arguments, code=2)
    assert "STUDY" in line or "no database" in line
