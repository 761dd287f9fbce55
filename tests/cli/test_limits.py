"""Limits of the device, from the study file to what `status` says."""

from optuna.trial import TrialState

from igkd_hpo.search.status import status as study_statuses
from igkd_hpo.search.storage import open_storage
from tests.cli.conftest import STUDY, Workspace

SIZES = STUDY.replace("layers_removed: 17 ", "layers_removed: {type: int, low: 12, high: 17} ").replace(
    "epochs: 4}", "epochs: 2}"
)

STRATA = "strata: {{of: parameters, at: [{}]}}\n"


def limited(limit: str) -> str:
    return SIZES + f"limits: {{{limit}}}\n"


def test_only_what_fits_is_trained(workspace: Workspace) -> None:
    # The controls remove 14 of the blocks, which leaves 4,714 parameters; half of the others fit.
    workspace.write(limited("parameters: 4000"))
    launched = workspace.here("launch", "study.yaml", "--trials", "2")
    assert launched.stderr.count("the controls will not be trained") == 1
    trials = workspace.trials()
    beyond = [trial for trial in trials if trial.state is TrialState.PRUNED and "parameters" in trial.constraints]
    trained = [trial for trial in trials if trial not in beyond and trial.intermediate_values]
    assert len(trained) == 2
    assert [trial.user_attrs.get("control") for trial in beyond[:2]] == ["student", "kd_ig"]
    for trial in beyond:
        assert trial.user_attrs["parameters"] > 4000
        assert "limits.parameters allows 4,000" in trial.user_attrs["reason"]
        assert trial.intermediate_values == {}
    checkpoints = {path.name for path in (workspace.folder / "storage" / "checkpoints" / "tiny").iterdir()}
    assert checkpoints == {f"trial-{trial.number:05d}" for trial in trained if trial.state is TrialState.COMPLETE}
    for trial in trained:
        assert trial.user_attrs["parameters"] <= 4000
        measured = {"macs", "size_kb", "peak_ram_kb", "latency_ms", "latency_ms_p95", "latency_of"}
        assert measured <= trial.user_attrs.keys()

    (status,) = study_statuses(open_storage(workspace.url, create=False))
    assert status.counts.infeasible == len(beyond)
    assert status.best_cost is not None
    assert status.best_cost["macs"] > 0


def refused_before_training(workspace: Workspace, why: str) -> str:
    """What `validate` says of the study, which `launch` refuses for the same reason."""
    line = workspace.refused_here("validate", "study.yaml", code=2)
    assert why in line
    done = workspace.here("launch", "study.yaml", code=2)
    assert why in done.stderr.strip().splitlines()[-1]
    assert workspace.trials() == []
    return line


def test_a_study_in_which_nothing_fits_is_refused(workspace: Workspace) -> None:
    workspace.write(limited("parameters: 100"))
    line = refused_before_training(workspace, "even the smallest student")
    assert "limits.parameters allows 100" in line


def test_each_stratum_is_searched_and_told_of(workspace: Workspace) -> None:
    # 12 to 17 blocks removed leave 7,530 to 490 parameters.
    workspace.write(SIZES.replace("controls: [student, kd_ig]", "controls: []") + STRATA.format("1000, 8k"))
    assert "strata up to 1,000, 8,000" in workspace.here("launch", "study.yaml", "--dry-run").stdout
    workspace.here("launch", "study.yaml", "--trials", "4")
    trials = workspace.trials()
    for trial in trials:
        assert (trial.constraints["stratum"] > 0) == (trial.user_attrs["parameters"] > trial.user_attrs["stratum"])
        assert (trial.constraints["stratum"] > 0) == (trial.intermediate_values == {})
    trained = [trial for trial in trials if trial.intermediate_values]
    assert [trial.user_attrs["stratum"] for trial in trained] == [1000, 8000, 1000, 8000]
    beyond = [trial.user_attrs["reason"] for trial in trials if trial not in trained]
    assert all("the stratum it was drawn for ends at 1,000" in reason for reason in beyond)
    said = "up to 1,000 parameters: "
    for command in (["status"], ["best"], ["report", "-o", "report.html"]):
        shown = workspace.here(*command).stdout
        if command[0] == "report":
            shown = (workspace.folder / "report.html").read_text(encoding="utf-8")
        assert said in shown, command


def test_a_stratum_without_a_student_is_refused(workspace: Workspace) -> None:
    workspace.write(SIZES + STRATA.format("480, 8k"))
    line = refused_before_training(workspace, "no student is in the stratum")
    assert "no student is in the stratum from 0 parameters to 480 parameters" in line
    assert "490 parameters to" in line
