"""Commands that read a study whose accuracies are made up."""

import csv
import io
import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from optuna.trial import TrialState

from igkd_hpo.config.reading import read_study
from igkd_hpo.search.study import SearchStudy, study_names
from igkd_hpo.search.trial_table import as_csv, as_json, table_columns
from tests.cli.conftest import Workspace, json_of
from tests.fixtures.studies import STUDY, Run, paths, run, storage, study, study_file

__all__ = ["paths", "run", "storage", "study", "study_file"]


@pytest.fixture
def results(study: SearchStudy, run: Run, tmp_path: Path) -> Workspace:
    """A folder whose database holds five trials of 140,234 parameters, the last of them pruned, and one of 50,000."""
    for accuracy in (0.70, 0.75, 0.80, 0.78):
        run(0.5, accuracy)
    claim = run(0.6, 0.72)
    study.storage.set_trial_user_attrs(claim.trial_id, {"parameters": 50_000})
    run(0.3, end="prune")
    return Workspace(tmp_path)


def test_best_and_export_take_limits(results: Workspace) -> None:
    said = results.here("best", "--under", "parameters=100k", "--under", "latency_ms=5ms").stdout
    assert "best with at most 100,000 parameters and 5.000 ms for an image: trial 4, 72.00 %" in said
    assert "igkd-hpo export digits --under parameters=100000 --under latency_ms=5" in said
    found = json_of(results.here("best", "digits", "--under", "macs=9M", "--json"))
    assert (found["number"], found["under"], found["remarks"]) == (2, {"macs": 9e6}, [])
    exported = results.here("export", "-o", "small.yaml", "--under", "parameters=100k")
    assert "at most 100,000 parameters (not confirmed" in exported.stderr
    provenance = read_study(results.folder / "small.yaml").provenance
    assert provenance is not None
    assert provenance.trial == 4


@pytest.mark.parametrize("theirs", [STUDY, "a: letter", "name: [", "exported: with a range of its own"])
def test_an_export_replaces_earlier_ones_alone(results: Workspace, theirs: str) -> None:
    results.here("export", "-o", "best.yaml")
    text = (results.folder / "best.yaml").read_text()
    if "range" in theirs:
        theirs = re.sub(r"(?m)^  alpha: .*$", "  alpha: {type: float, low: 0.1, high: 0.9}", text)
    results.write(theirs, "best.yaml")
    assert "best.yaml is there already" in results.refused_here("export", code=2)
    assert (results.folder / "best.yaml").read_text() == theirs
    for earlier in (text, ""):
        results.write(earlier, "best.yaml")
        assert "(replaced)" in results.here("export").stderr
    assert read_study(results.folder / "best.yaml").name == "digits-best"


@pytest.mark.parametrize("command", [["best"], ["best", "--json"], ["export"]])
def test_what_nothing_meets_is_one_line_with_the_nearest(results: Workspace, command: list[str]) -> None:
    line = results.refused_here(*command, "--under", "parameters=5k", code=3)
    assert "trial 4 with 72.00 % and 50,000 parameters" in line
    assert "--under parameters=50000" in line
    assert not (results.folder / "best.yaml").exists()


def test_status_tells_programs_the_frontier(results: Workspace) -> None:
    (found,) = json_of(results.here("status", "--json"))
    steps = [(step["trial"], step["cost"], step["told_apart"]) for step in found["frontier"]["steps"]]
    assert steps == [(4, 50_000, True), (2, 140_234, True)]
    assert "not known" in found["frontier"]["intervals"]


def test_trials_are_a_table_that_agrees_with_itself(results: Workspace, study: SearchStudy) -> None:
    found = json_of(results.here("trials", "--json"))
    rows = list(csv.DictReader(io.StringIO(results.here("trials", "digits", "--csv").stdout)))
    assert list(rows[0]) == table_columns()
    assert [trial["number"] for trial in found] == [int(row["number"]) for row in rows] == list(range(6))
    assert [row["state"] for row in rows] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert [row["control"] for row in rows][:3] == ["student", "kd", ""]
    assert [float(row["validation_accuracy"]) for row in rows] == [0.70, 0.75, 0.80, 0.78, 0.72, 0.3]
    assert [int(row["epochs"]) for row in rows] == [2, 2, 2, 2, 2, 1]
    assert found[0]["validation_accuracies"] == {"1": 0.5, "2": 0.7}
    assert (rows[5]["reason"], found[0]["reason"]) == ("below the bar", None)
    assert [row["parameters"] for row in rows] == ["140234"] * 4 + ["50000", "140234"]
    assert rows[0]["nonzero_parameters"] == ""
    for trial, row, kept in zip(found, rows, study.trials(), strict=True):
        assert trial["hyperparameters"] == kept.user_attrs["hyperparameters"]
        assert float(row["params_alpha"]) == trial["hyperparameters"]["alpha"]
        took = datetime.fromisoformat(row["ended"]) - datetime.fromisoformat(row["started"])
        assert took.total_seconds() == pytest.approx(float(row["seconds"]), abs=0.002)
        assert row["started"].endswith("+00:00")


def test_what_runs_and_what_waits_is_in_the_table(results: Workspace, study: SearchStudy, run: Run) -> None:
    enqueued = {"temperature": 2.0, "alpha": 0.25}
    study.optuna_study.enqueue_trial(enqueued)
    run(0.4, end="leave")
    study.optuna_study.enqueue_trial(enqueued)
    running, waiting = json_of(results.here("trials", "--json"))[-2:]
    assert (running["state"], running["validation_accuracy"], running["ended"]) == ("RUNNING", 0.4, None)
    assert (waiting["state"], waiting["hyperparameters"], waiting["seconds"]) == ("WAITING", {}, None)


def test_a_text_of_a_table_is_one_cell_and_no_formula(results: Workspace, study: SearchStudy) -> None:
    trial = study.trials()[5]
    study.storage.set_trial_user_attrs(trial._trial_id, {"reason": '=1+1, "so"\nand\x1b[31m'})
    (row,) = [row for row in csv.DictReader(io.StringIO(results.here("trials").stdout)) if row["number"] == "5"]
    assert row["reason"].startswith('\'=1+1, "so"')
    assert "\n" not in row["reason"]
    assert "\x1b" not in row["reason"]


def test_a_study_without_trials_is_an_empty_table(study: SearchStudy, tmp_path: Path) -> None:
    for trial in study.trials():
        study.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert [one["state"] for one in json_of(Workspace(tmp_path).here("trials", "--json"))] == ["FAIL", "FAIL"]
    assert json.loads("".join(as_json([]))) == []
    assert "".join(as_csv([])).count("\n") == 1


def test_two_forms_at_once_are_refused(tmp_path: Path) -> None:
    assert "--csv and --json" in Workspace(tmp_path).refused_here("trials", "--csv", "--json", code=2)


def test_rename_and_delete_say_what_they_did(results: Workspace, study: SearchStudy) -> None:
    assert "digits is old now" in results.here("rename", "digits", "old").stderr
    line = results.refused_here("delete", "old", code=2)
    assert "old (6 trials)" in line
    assert "add --yes" in line
    assert "did you mean old?" in results.refused_here("delete", "olds", "--yes", code=2)
    assert "'old'" in results.refused_here("rename", "old", "old", code=2)
    assert "deleted old (6 trials)" in results.here("delete", "old", "--yes").stderr
    assert "holds no studies" in results.refused_here("best", code=2)


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_a_person_is_asked(
    results: Workspace, study: SearchStudy, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    typed = io.StringIO(answer)
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    said = results.here("delete", "digits").stderr
    assert "delete digits (6 trials), with weights" in said
    assert len(study_names(study.storage)) == left
    assert ("nothing was deleted" in said) == bool(left)
