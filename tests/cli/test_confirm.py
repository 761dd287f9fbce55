"""`confirm` with real workers: trained, tested once, and exported. In this process, which has torch already."""

import dataclasses
import io
import shutil
from functools import partial

import pytest
from optuna.trial import TrialState
from rich.console import Console

from igkd_hpo.api.train import test_result as measure_on_test
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.cli.confirm import confirm
from igkd_hpo.config.reading import parse_study
from igkd_hpo.confirmation import scene
from igkd_hpo.confirmation.choice import best_or_confirmed
from igkd_hpo.confirmation.confirmation import read_confirmation
from igkd_hpo.confirmation.evaluation import evaluate
from igkd_hpo.confirmation.explaining import explain
from igkd_hpo.confirmation.explanation_sentences import verdict_on_reasons
from igkd_hpo.errors import AssetMissing, NoCompletedTrial, UsageError
from igkd_hpo.report.gallery import N_IMAGES
from igkd_hpo.report.page import write_report
from igkd_hpo.search.confirmation_study import create_linked
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, latest_study, open_study
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.progress import LineProgress
from igkd_hpo.trial.train import train_student
from tests.cli.conftest import STUDY, Workspace, made_up_search, openings

SEARCHED = STUDY.replace("controls: [student, kd_ig]", "controls: []").replace("epochs: 4}", "epochs: 2}")


@pytest.fixture
def searched(workspace: Workspace, settings: Settings) -> SearchStudy:
    """The tiny study with two completed trials; the search is not what is tested here, so nobody trained them."""
    return made_up_search(workspace, settings, SEARCHED, 0.5, 0.6)


def test_from_confirm_to_export(
    workspace: Workspace,
    searched: SearchStudy,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scene, "_MOST_IMAGES", 8)
    confirm(top=1, seeds=2, workers=2, explanations=True)
    told = capsys.readouterr()
    assert "IG" in told.out
    assert "8 of 8 trials are new" in told.err
    assert "4 arms with 2 seeds each, 8 trainings of " in told.err
    assert "--seeds 5" in told.err
    assert "one after the other" in told.err
    assert "then the maps of up to 8 students are compared" in told.err

    # Four arms, two seeds each.
    trials = workspace.checked_to_end(8, "tiny-confirm")
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert {trial.user_attrs["seed"] for trial in trials} == {1_000_000, 1_000_001}
    names = ["trial 1", "trial 1 without IG", "trial 1 without KD", "trial 1 without both"]
    assert [trial.user_attrs["arm_name"] for trial in trials] == names * 2
    assert openings(settings) == ["confirm"]

    # Asked again, it reads what is kept, and the test split stays closed.
    linked = open_study(searched.storage, "tiny-confirm")
    evaluate(linked, settings, device="cpu", progress=LineProgress(Console(quiet=True)))
    found = read_confirmation(linked)
    assert found is not None
    assert [arm.name for arm in found.arms] == names
    assert found.n_test_images == 1079
    assert openings(settings) == ["confirm"]
    assert latest_study(searched.storage) == "tiny"

    # The maps of the best, of it without IG and of plain training were compared with the teacher's, once.
    explained = found.explanations
    assert explained is not None
    assert [arm.name for arm in explained.arms][:3] == [names[0], names[1], names[3]]
    assert {len(arm.trials) for arm in explained.arms} == {2}
    assert explained.n_images == 8
    assert verdict_on_reasons(found) in told.out.splitlines()
    assert "random weights" in told.out
    shown = io.StringIO()
    explain(linked, found, settings, device="cpu", progress=LineProgress(Console(file=shown)))
    assert shown.getvalue() == "", "they are not compared again"
    page = write_report(searched, settings).html
    maps = 2 + len(explained.arms)  # the image and the teacher's map too
    assert page.count("data:image/png") == 4 * N_IMAGES + maps * len(explained.examples)
    assert openings(settings) == ["confirm"]

    # The network that was tested is the one that the exported file trains.
    exported = exported_study(*best_or_confirmed(searched))
    arm = found.arm(found.chosen)
    trained = train_student(
        exported,
        settings,
        seed=None,
        device="cpu",
        evaluate=partial(measure_on_test, exported, settings),
        output=None,
        progress=LineProgress(Console(quiet=True)),
    )
    assert (trained.validation_accuracy, trained.test_accuracy) == (
        arm.validation.accuracies[0],
        arm.test.accuracies[0],
    )

    # Without the weights of a trial nothing is tested.
    linked.storage.set_study_user_attr(linked.study_id, "test_split", {"accuracies": {}, "images": 0, "opened": []})
    shutil.rmtree(settings.paths.trial_checkpoints("tiny-confirm", 3))
    with pytest.raises(AssetMissing, match=r" 1 .* tiny-confirm \(3; .*/checkpoints/tiny-confirm;"):
        evaluate(linked, settings, device="cpu", progress=LineProgress(Console(quiet=True)))
    assert openings(settings) == ["confirm", "train --test"]
    with pytest.raises(AssetMissing, match=r" 1 .* tiny-confirm \(3; .* nothing was explained"):
        explain(
            linked,
            dataclasses.replace(found, explanations=None),
            settings,
            device="cpu",
            progress=LineProgress(Console(quiet=True)),
        )


def test_what_cannot_be_confirmed(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"--seeds 1 .* 2 "):
        confirm(seeds=1)
    with pytest.raises(UsageError, match=r"--workers 0 .* 1 "):
        confirm(workers="0")
    with pytest.raises(UsageError, match=r"--workers 'two' .* auto"):
        confirm(workers="two")
    study = create_or_open(
        open_storage(workspace.url, create=True), parse_study(STUDY, source="study.yaml"), n_trials=None, pins=None
    )
    with pytest.raises(UsageError, match=r"'tinny' .*tiny\?"):
        confirm("tinny")
    with pytest.raises(NoCompletedTrial, match=r"tiny .*`igkd-hpo launch tiny`"):
        confirm()
    linked = create_linked(
        study.storage, study.config, "confirm", pins=AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
    )
    with pytest.raises(UsageError, match=r"tiny-confirm .* tiny,"):
        confirm(linked.name)
