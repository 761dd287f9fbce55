"""The pictures of `show`: what is drawn, what is said when there is nothing to draw, and how files are written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igkd_hpo.config.study import Study
from igkd_hpo.errors import UsageError
from igkd_hpo.report.pictures import curves_figure, importance_figure, maps_figure, save_figure
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open


def test_maps_stand_below_their_images(tmp_path: Path) -> None:
    images = np.zeros((10, 3, 8, 8), dtype=np.uint8)
    images[9] = 200
    maps = np.zeros((10, 8, 8))
    maps[9] = 1.0
    figure = maps_figure(images, maps, images, [f"class {n}" for n in range(10)], "strength 0.5")
    axes = np.array(figure.axes).reshape(6, 8)  # two bands of three rows
    assert [axis.get_title() for axis in axes[3, :3]] == ["class 8", "class 9", ""]
    shown = [axes[row, 1].images[0].get_array() for row in (3, 4, 5)]
    assert [array.flat[0] for array in shown] == [200, 1.0, 200]
    assert not axes[3, 2].images
    assert "strength 0.5" in axes[2, 0].texts[0].get_text()
    save_figure(figure, tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as picture:
        assert picture.width > 1000


def test_a_class_may_be_called_what_it_likes(tmp_path: Path) -> None:
    images, maps = np.zeros((2, 3, 8, 8), dtype=np.uint8), np.zeros((2, 8, 8))
    figure = maps_figure(
        images, maps, images, ["$\\frac{$", "a\x1b[2J\n"], "blend"
    )  # to matplotlib the first is a formula
    assert [axis.get_title() for axis in figure.axes[:2]] == ["$\\frac{$", "a\\x1b[2J\\n"]
    save_figure(figure, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_curves_name_the_best_and_the_controls(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)
    run(0.5, 0.6, 0.75)
    run(0.4, end="prune")
    run(0.3, 0.35, end="prune")
    run(0.5, 0.7, 0.80)
    run(0.5, 0.7, 0.60)
    (axis,) = curves_figure(study).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert drawn["best of the search, trial 4: 80.00 %"] == [0.5, 0.7, 0.80]
    assert drawn["control student: 70.00 %"] == [0.5, 0.6, 0.70]
    assert drawn["control kd: 75.00 %"] == [0.5, 0.6, 0.75]
    assert drawn["pruned trials"] == [0.4]
    assert drawn["other trials"] == [0.5, 0.7, 0.60]
    assert len(axis.lines) == 6
    legend = axis.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 5
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "validation accuracy")
    assert axis.yaxis.get_major_formatter()(0.785, None) == "78.5 %"
    assert axis.get_ylim()[0] < 0.3


def test_importance_ranks_what_was_searched(study: SearchStudy, run, tmp_path: Path) -> None:
    for accuracy in (0.70, 0.75, 0.80, 0.85, 0.6, 0.65):
        run(0.5, 0.6, accuracy)
    figure = importance_figure(study)
    (axis,) = figure.axes
    names = {label.get_text() for label in axis.get_yticklabels()}
    assert names == {"temperature", "alpha", "overlay_strength", "learning_rate", "batch_size"}
    assert "6 completed trials" in axis.get_xlabel()
    assert sum(bar.get_width() for bar in axis.patches) == pytest.approx(1)
    save_figure(figure, tmp_path / "importance.svg")
    assert "<svg" in (tmp_path / "importance.svg").read_text()


def test_equal_trials_rank_nothing(study: SearchStudy, run) -> None:
    for _ in range(4):
        run(0.5, 0.6, 0.7)
    with pytest.raises(UsageError, match=r"all 4 .* digits .*same accuracy"):
        importance_figure(study)


def test_too_little_to_draw_is_said(study: SearchStudy, run) -> None:
    with pytest.raises(UsageError, match=r"digits .*no finished epoch"):
        curves_figure(study)
    run(0.5, 0.6, 0.7)
    with pytest.raises(UsageError, match=r"digits .* 1 completed trials"):
        importance_figure(study)


def test_a_study_of_seeds_has_no_importance(storage: SharedStorage, study_file: Study) -> None:
    fixed = {"temperature": 4.0, "alpha": 0.5, "overlay_strength": 0.5, "learning_rate": 0.1, "batch_size": 64}
    hyperparameters = study_file.hyperparameters.model_copy(update=fixed)
    seeds = study_file.model_copy(update={"name": "seeds", "hyperparameters": hyperparameters})
    with pytest.raises(UsageError, match="study seeds searches no hyperparameter"):
        importance_figure(create_or_open(storage, seeds, n_trials=None, pins=None))


@pytest.mark.parametrize("name", ["maps", "maps.jpeg", "maps.txt"])
def test_a_name_without_a_format_is_refused(tmp_path: Path, name: str) -> None:
    one = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    with pytest.raises(UsageError, match=rf"{name}: .*\.png, \.svg or \.pdf"):
        save_figure(maps_figure(one, one[:, 0], one, ["a"], "blend"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    with pytest.raises(UsageError, match=r"no/maps\.png: No such file.* -o\b"):
        save_figure(maps_figure(one, one[:, 0], one, ["a"], "blend"), tmp_path / "no" / "maps.png")


def test_importing_results_stays_light() -> None:
    names = ("search.best", "search.export", "search.status", "report.pictures", "dashboard")
    modules = ", ".join(f"igkd_hpo.{name}" for name in names)
    heavy = "{'torch', 'sklearn', 'matplotlib', 'optuna_dashboard', 'scipy.stats'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_had_no_effect_in_a_trial_is_not_judged_by_it(
    study: SearchStudy, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        run(0.5, 0.6, 0.6 + 0.04 * number)
    trials = study.trials()
    for trial in trials[:3]:
        trial.set_user_attr("without_effect", ["temperature"])
    monkeypatch.setattr(study, "trials", lambda: trials)
    figure = importance_figure(study)
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    shares = dict(zip(names, [bar.get_width() for bar in axis.patches], strict=True))
    assert shares["temperature"] == 0
    assert sum(shares.values()) == pytest.approx(1)
