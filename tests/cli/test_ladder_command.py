"""`ladder` from the command to the results: trained, tested once, gone on with, and what is refused."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import yaml
from optuna.trial import TrialState

import igkd_hpo
from igkd_hpo.api.ladder import ladder
from igkd_hpo.compression.int8 import read_int8
from igkd_hpo.compression.ladder import read_ladder
from igkd_hpo.config.reading import parse_study
from igkd_hpo.errors import UsageError
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study
from igkd_hpo.settings import Settings
from tests.cli.conftest import STUDY, Workspace, made_up_search, openings

# The teacher has 250,922 parameters, and cut to its first two or three blocks 490 and 1,898.
SEARCHED = STUDY.replace("controls: [student, kd_ig]", "controls: []").replace("epochs: 4}", "epochs: 1}")


@pytest.fixture
def searched(workspace: Workspace, settings: Settings) -> SearchStudy:
    """The tiny study with one completed trial, which nobody trained."""
    return made_up_search(workspace, settings, SEARCHED, 0.5)


def test_a_ladder_is_trained_tested_once_and_gone_on_with(
    searched: SearchStudy, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ladder("tiny", rungs=[512, 9e4], seeds=2, int8=True, engine="in_process")
    (step,) = found.steps
    assert (step.asked, round(step.reached), step.student["layers_removed"]) == (512, 512, 17)
    assert (step.cost["parameters"], step.cost["compression_factor"]) == (490, pytest.approx(step.reached, abs=1e-3))
    assert [rung.asked for rung in found.left_out] == [9e4]
    assert "90,000 times is left out" in capsys.readouterr().err
    linked = open_study(searched.storage, "tiny-ladder")
    assert [trial.user_attrs["arm_name"] for trial in linked.trials()] == ["512 times distilled", "512 times plain"] * 2
    assert {trial.user_attrs["seed"] for trial in linked.trials()} == {1_000_000, 1_000_001}
    assert {trial.state for trial in linked.trials()} == {TrialState.COMPLETE}
    assert openings(settings) == ["ladder"]
    validated = {trial.number: trial.value for trial in linked.trials()}
    assert {number: one.float32 for number, one in read_int8(linked).items()} == pytest.approx(validated)
    assert step.int8 is not None
    assert abs(step.int8.value) < 0.5

    # Asked again it reads what is kept; with another rung, only that is trained, and tested.
    assert ladder("tiny", rungs=[512], seeds=2, engine="in_process") == found == read_ladder(linked)
    assert openings(settings) == ["ladder"]
    more = ladder("tiny", rungs=[132], seeds=2, engine="in_process")
    assert [step.asked for step in more.steps] == [132, 512]
    assert more.steps[1].distilled is not None
    assert more.steps[1].distilled.test == found.steps[0].distilled.test  # type: ignore[union-attr]
    assert len(linked.trials()) == 8
    assert openings(settings) == ["ladder", "ladder"]
    assert "512 times from before" in capsys.readouterr().err
    assert igkd_hpo.open_study("tiny").ladder == more

    with pytest.raises(UsageError, match=r"no rung of tiny can be had: 90,000 times: .*; .*--rungs"):
        _alone(searched, linked, rungs=[9e4])


@pytest.mark.parametrize(
    ("of_file", "n_steps"),  # other steps for each: maps that one made would be there for the other
    [(igkd_hpo.train, 3), (partial(ladder, rungs=[512], seeds=2, engine="in_process"), 2)],
)
def test_of_the_teacher_only_that_is_made_which_a_file_without_ranges_asks_for(
    workspace: Workspace, of_file: Callable[..., object], n_steps: int
) -> None:
    assets = workspace.folder / "storage" / "assets"
    before = {folder.name for folder in assets.glob("maps-*")}
    fixed = {"temperature": 2.0, "alpha": 0.5, "overlay_probability": 0.0, "learning_rate": 0.1}
    study = yaml.safe_load(STUDY)
    study |= {"controls": ["kd_ig"], "attribution": {"n_steps": n_steps}, "training": {"epochs": 1}}
    of_file(study | {"hyperparameters": study["hyperparameters"] | fixed}, progress=False)
    assert {folder.name for folder in assets.glob("maps-*")} == before


def _alone(searched: SearchStudy, linked: SearchStudy, *, rungs: list[float]) -> None:
    """Ask for a ladder where there is none yet."""
    searched.storage.delete_study(linked.study_id)
    ladder("tiny", rungs=rungs, seeds=2, engine="in_process")


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--seeds", "0"], 2, r"--seeds 0 .* 2 "),
        (["--workers", "0"], 2, r"--workers 0 .* 1 "),
        (["--rungs", "4.1,4.1"], 2, r"--rungs: 4\.1 is there twice; "),
        (["--rungs", "1"], 2, r"--rungs: 1 is not above 1; "),
        (["--rungs", "small"], 2, r"--rungs: 'small' .*4\.1,12"),
        (["--trial", "7"], 2, r"--trial 7: .* 0 to 1;"),
        ([], 3, r"tiny .*`igkd-hpo launch tiny`"),
        (["tinny"], 2, r"'tinny' .*tiny\?"),
    ],
)
def test_what_has_no_ladder_is_one_line(workspace: Workspace, arguments: list[str], code: int, named: str) -> None:
    create_or_open(
        open_storage(workspace.url, create=True), parse_study(STUDY, source="study.yaml"), n_trials=None, pins=None
    )
    assert re.search(named, workspace.refused_here("ladder", *arguments, code=code))
