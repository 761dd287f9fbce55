"""From launch to export, as one story and with everything that may come between."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML

from tests.cli.conftest import STUDY, Workspace, is_running, json_of, signal_group, wait_until

LONG = 25  # epochs; on a quiet core over a second


def longer() -> str:
    """The tiny study with trials long enough to be disturbed."""
    return STUDY.replace("training: {epochs: 4}", f"training: {{epochs: {LONG}}}").replace(
        "pruner: {name: median, grace_period: 1}", "pruner: {name: none}"
    )


def first_epochs(workspace: Workspace, count: int = 1) -> bool:
    """Whether that many trials are running and have a finished epoch in the database."""
    running = [t for t in workspace.trials() if t.state == TrialState.RUNNING and t.intermediate_values]
    return len(running) >= count


def running(workspace: Workspace, number: int) -> FrozenTrial | None:
    """The trial if it runs and has a finished epoch."""
    found = [trial for trial in workspace.trials() if trial.number == number]
    return next((trial for trial in found if trial.state == TrialState.RUNNING and trial.intermediate_values), None)


def lease_of(workspace: Workspace, trial: FrozenTrial) -> Any:
    (lease,) = (lease for lease in workspace.leases() if lease["trial_id"] == trial._trial_id)
    return lease


def test_from_launch_to_train(workspace: Workspace) -> None:
    launched = workspace.here("launch", "study.yaml", "--workers", "2")
    trials = workspace.checked_to_end(8)
    assert "8 of 8 trials finished" in launched.stdout

    # Each attempt had a process of its own, and the controls ran with what defines them.
    assert len({trial.user_attrs["pid"] for trial in trials}) == len(trials)
    # A worker measures each architecture once, and all students here have the same.
    assert len({trial.user_attrs["latency_of"] + str(trial.user_attrs["latency_ms_p95"]) for trial in trials}) <= 2
    by_control = {t.user_attrs["control"]: t for t in trials if "control" in t.user_attrs}
    assert by_control["student"].user_attrs["hyperparameters"]["alpha"] == 0
    assert by_control["kd_ig"].user_attrs["hyperparameters"]["temperature"] == 4
    assert all(trial.state == TrialState.COMPLETE for trial in by_control.values())

    best = json_of(workspace.here("best", "--json"))
    assert best["validation_accuracy"] == max(t.value for t in trials if t.state == TrialState.COMPLETE)
    (status,) = json_of(workspace.here("status", "--json"))
    assert status["name"] == "tiny"
    assert "tiny" in workspace.here("status").stdout

    workspace.here("export", "-o", "best.yaml")
    exported = YAML(typ="safe").load(workspace.folder / "best.yaml")
    assert not any(isinstance(value, dict) for value in exported["hyperparameters"].values())
    workspace.here("validate", "best.yaml")
    trained = json_of(workspace.here("train", "best.yaml", "--json"))
    assert trained["validation_accuracy"] == best["validation_accuracy"]
    weights = torch.load(Path(trained["folder"], "student.pt"), weights_only=True)
    checkpoints = workspace.folder / "storage" / "checkpoints" / "tiny" / f"trial-{best['number']:05d}"
    (kept,) = checkpoints.glob("attempt-*.pt")
    searched = torch.load(kept, weights_only=True)["weights"]
    assert all(torch.equal(weights[name], searched[name]) for name in searched)

    for kind in (["--curves"], ["--importance"], ["--maps", "4"]):
        workspace.here("show", "tiny", *kind, "-o", f"{kind[0][2:]}.png")
        assert (workspace.folder / f"{kind[0][2:]}.png").read_bytes().startswith(b"\x89PNG")
    plan = workspace.here("launch", "study.yaml", "--workers", "auto", "--trials", "10", "--dry-run").stdout
    measured = re.search(r"^workers: (\d+) \(cpu\); measured .* on cpu: 1 trained [\d,]+ images/s", plan, re.M)
    assert measured is not None, plan
    assert plan.count(": cpu, ") == int(measured[1])
    assert "10 trials of 4 epochs, 8 finished" in plan
    assert re.search(r" 2 trials without pruning: about \d", plan), plan
    assert "assets: there" in plan
    assert len(workspace.trials()) == 8

    again = workspace.here("launch", "study.yaml", "--workers", "0")
    assert "0 of 8 trials are left" in again.stderr
    assert re.search("finished already: 8 trials.*`--trials N`", again.stderr)
    assert len(workspace.trials()) == 8
    workspace.here("launch", "study.yaml", "--trials", "9")
    workspace.checked_to_end(9)
    assert "study tiny is finished, 9 of 9 trials" in workspace.here("worker", "tiny").stderr

    changed = workspace.write(STUDY.replace("epochs: 4}", "epochs: 5}"), "changed.yaml")
    refusal = workspace.here("launch", str(changed), code=2).stderr
    assert "training.epochs: 4 -> 5" in refusal
    assert "--new-version" in refusal
    renamed = workspace.here("launch", str(changed), "--new-version", "--dry-run").stdout
    assert "study tiny-v2: 8 trials of 5 epochs, 0 finished" in renamed
    assert workspace.trials("tiny-v2") == []


def test_ctrl_c_gives_everything_back_and_launch_goes_on(workspace: Workspace) -> None:
    workspace.write(longer())
    launched = workspace.start("launch", "study.yaml", "--workers", "2", "--trials", "2")
    wait_until(lambda: first_epochs(workspace), "a trial with an epoch")
    at_work = [trial.user_attrs for trial in workspace.trials() if trial.state == TrialState.RUNNING]
    pids = [attributes["pid"] for attributes in at_work if "pid" in attributes]  # one may have no process yet
    assert pids
    signal_group(launched, signal.SIGINT)
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == 130, output
    assert "Traceback" not in output
    assert not any(is_running(pid) for pid in pids)
    assert workspace.states()[TrialState.RUNNING] == 0
    assert workspace.leases() == []
    interrupted = [t for t in workspace.trials() if t.intermediate_values and t.state == TrialState.WAITING]
    assert interrupted

    before = {trial.number: dict(trial.intermediate_values) for trial in interrupted}
    workspace.here("launch", "study.yaml", "--workers", "2", "--trials", "2")
    trials = {trial.number: trial for trial in workspace.checked_to_end(2)}
    for number, values in before.items():
        assert trials[number].user_attrs["attempts"] == 2
        assert values.items() <= trials[number].intermediate_values.items()
        assert len(trials[number].intermediate_values) == LONG
        log = workspace.folder / "storage" / "logs" / "tiny" / f"trial-{number:05d}-attempt-002.log"
        gone_on = re.search(r"going on after epoch (\d+)", log.read_text())
        assert gone_on is not None
        assert int(gone_on[1]) >= max(values)


def fork_server_of(launched: subprocess.Popen[str]) -> int:
    """Its process id."""
    children = psutil.Process(launched.pid).children()
    (found,) = (child.pid for child in children if "igkd_hpo.engines.local.fork_server_main" in child.cmdline())
    return found


def test_no_killed_process_loses_a_trial(workspace: Workspace) -> None:
    workspace.write(longer())
    launched = workspace.start("launch", "study.yaml", "--workers", "2", "--trials", "4")
    wait_until(lambda: first_epochs(workspace), "a trial with an epoch")
    os.kill(fork_server_of(launched), signal.SIGKILL)  # what trains goes on, and what comes next has another server
    first = wait_until(lambda: running(workspace, 2) or running(workspace, 3), "a trial of the other server")
    os.kill(lease_of(workspace, first)["trial_pid"], signal.SIGKILL)
    (other,) = {2, 3} - {first.number}
    second = wait_until(lambda: running(workspace, other), "the last trial")
    os.kill(lease_of(workspace, second)["worker_pid"], signal.SIGKILL)
    output, _ = launched.communicate(timeout=240)
    assert launched.returncode == 0, output
    trials = workspace.checked_to_end(4)
    assert [trial.user_attrs["attempts"] for trial in trials] == [1, 1, 2, 2]
    assert all(len(trial.intermediate_values) == LONG for trial in trials)


def test_a_killed_launch_leaves_nothing_running_and_the_next_one_goes_on(workspace: Workspace) -> None:
    workspace.write(longer())
    launched = workspace.start("launch", "study.yaml", "--workers", "2", "--trials", "2")
    wait_until(lambda: first_epochs(workspace), "a trial with an epoch")
    left = [fork_server_of(launched)]
    for lease in workspace.leases():
        left += [lease["worker_pid"], lease["trial_pid"]]
    os.kill(launched.pid, signal.SIGKILL)
    for pid in left:
        wait_until(lambda pid=pid: not is_running(pid), f"process {pid} to leave")
    workspace.here("launch", "study.yaml", "--workers", "2", "--trials", "2")
    workspace.checked_to_end(2)


def test_a_loss_that_is_not_finite_is_pruned_with_the_reason(workspace: Workspace) -> None:
    hot = STUDY.replace("{type: float, low: 1.0e-3, high: 1.0, log: true}", "100.0").replace(
        "batch_size: 128", "batch_size: 128\n  weight_decay: 1.0"
    )
    workspace.write(hot.replace("controls: [student, kd_ig]", "controls: []"))
    workspace.here("launch", "study.yaml", "--trials", "2", code=3)
    trials = workspace.checked_to_end(2)
    assert all(trial.state == TrialState.PRUNED for trial in trials)
    assert all("not finite" in trial.user_attrs["reason"] for trial in trials)
    assert trials[0].value is not None


def test_trials_that_always_fail_stop_the_study_with_the_reason(workspace: Workspace) -> None:
    # No checkpoint can be written: each trial ends with the exception, no worker does.
    workspace.write(STUDY + "max_failures: 2\n")
    (workspace.folder / "storage" / "checkpoints").write_text("a file where a folder must be")
    done = workspace.here("launch", "study.yaml", code=3)
    states = workspace.states()
    assert states[TrialState.FAIL] == 2
    assert states[TrialState.RUNNING] == 0
    assert "checkpoints" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert all("Traceback" in trial.user_attrs["error"] for trial in workspace.trials() if trial.state.is_finished())
