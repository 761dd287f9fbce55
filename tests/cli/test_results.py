"""Commands that read a study whose accuracies are made up."""

from pathlib import Path

import pytest

from igkd_hpo.config.reading import read_study
from igkd_hpo.search.study import SearchStudy
from tests.cli.conftest import Workspace, json_of
from tests.fixtures.studies import Run, paths, run, storage, study, study_file

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
