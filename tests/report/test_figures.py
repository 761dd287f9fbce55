"""Parts of the report's figures that are not seen in its text."""

import pytest

from igkd_hpo.config.space import WordChoices
from igkd_hpo.report import figures
from igkd_hpo.report.ladder import apart
from igkd_hpo.report.pictures import new_figure
from igkd_hpo.search.frontier import frontier
from igkd_hpo.search.study import SearchStudy
from tests.fixtures.studies import Run


@pytest.mark.parametrize(
    ("choices", "slant"),
    [(("kd", "dkd"), 0), (("timm/lcnet_050", "timm/mobilenetv4_conv_small_050", "torchvision/resnet18"), 45)],
)
def test_names_that_do_not_fit_side_by_side_are_slanted_and_cut(choices: tuple[str, ...], slant: int) -> None:
    axis = new_figure(width=2, height=2).subplots()
    figures._scale(axis, WordChoices(type="categorical", choices=choices))
    labels = axis.get_xticklabels()
    assert [label.get_rotation() for label in labels] == [slant] * len(choices)
    assert all("/" not in label.get_text() and len(label.get_text()) <= 20 for label in labels)


def heights(study: SearchStudy) -> dict[str, list[float]]:
    figure = figures.history_figure(study.trials(), "accuracy")
    assert figure is not None
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}  # type: ignore[call-overload]


def test_a_pruned_trial_is_drawn_where_it_ended(study: SearchStudy, run: Run) -> None:
    for value in (0.375, 0.222, 0.264, 0.264, 0.389):
        run(value)
    run(0.181, end="prune")
    assert heights(study)["pruned, last value"] == [0.181]


def test_what_is_below_the_scale_is_drawn_below_all_others(study: SearchStudy, run: Run) -> None:
    for value in (0.90, 0.91, 0.92, 0.93):
        run(value)
    run(0.2, end="prune")
    drawn = heights(study)
    (pruned,) = drawn.pop("pruned, last value")
    assert 0.2 < pruned < min(value for line in drawn.values() for value in line)


def test_a_trial_on_the_frontier_is_seen(study: SearchStudy, run: Run) -> None:
    for value, size in ((0.70, 3000), (0.60, 2000), (0.80, 1000), (0.90, 4000)):
        study.storage.set_trial_user_attrs(run(value).trial_id, {"parameters": size})
    figure = figures.frontier_figure(frontier(study, "parameters"), study.trials())
    assert figure is not None
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    (step,) = [line for label, line in lines.items() if label in ("a step up", "a tie with the one before")]
    assert lines["completed"].get_zorder() > step.get_zorder()
    assert all(line.get_markersize() < step.get_markersize() for line in lines.values() if line is not step)


def test_rungs_are_labelled_where_their_labels_do_not_touch() -> None:
    assert apart([28.0, 321.0]) == [28.0, 321.0]
    assert apart([1122.0, 4.1, 4.3, 12.0]) == [4.1, 12.0, 1122.0]
    assert apart([12.0]) == [12.0]
