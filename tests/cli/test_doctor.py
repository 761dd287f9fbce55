"""`doctor` and `validate` as people use them: the table, JSON and exit codes."""

import re

import pytest

from tests.cli.conftest import STUDY, Workspace, json_of

# Maps of 4 steps miss their sum by 30 % or not, as the last bits of the teacher fall; those of 16 by far less.
HEALTHY = STUDY.replace("n_steps: 4", "n_steps: 16")


def test_a_healthy_study_as_json(workspace: Workspace) -> None:
    workspace.write(HEALTHY)
    found = json_of(workspace.here("doctor", "study.yaml", "--workers", "2", "--json"))
    assert (found["faults"], found["warnings"]) == (0, 0), found
    assert {"group": "study", "name": "pruner", "verdict": "ok", "advice": ""}.items() <= found["checks"][2].items()
    assert {check["group"] for check in found["checks"]} == {"study", "data", "teacher", "assets", "storage", "devices"}


def test_a_fault_in_a_table_that_fits_a_terminal(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    workspace.write(HEALTHY)
    (workspace.folder / "notes.db").write_text("no database " * 100)
    done = workspace.here("doctor", "study.yaml", "--storage", "sqlite:///notes.db", "--device", "cpu", code=5)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith("checks: 1 fault, 0 warnings; 4 more could not be made")  # without a database
    assert [line.split()[1] for line in lines if line.startswith("fault")] == ["reachable"]
    assert re.search("→ .* SQLite database", done.stdout)


def test_a_wrong_file_is_a_fault_and_a_missing_one_wrong_usage(workspace: Workspace) -> None:
    workspace.write(STUDY.replace("epochs: 4", "epochs: 0"))
    done = workspace.here("doctor", "study.yaml", code=5)
    assert "training.epochs" in done.stdout
    assert "missing.yaml" in workspace.refused_here("doctor", "missing.yaml", code=2)
    assert "--workers 0" in workspace.refused_here("doctor", "--workers", "0", code=2)


def test_validate_says_what_cannot_have_an_effect(workspace: Workspace) -> None:
    workspace.write(STUDY.replace("n_trials: 8", "n_trials: 2"))
    done = workspace.here("validate", "study.yaml")
    assert done.stdout.startswith("tiny: valid; searches temperature")
    assert re.fullmatch("warning: .* 2 controls .* n_trials 2: .* n_trials\n", done.stderr)
