"""The dashboard's graphs: what is in them, and that there are none where there is nothing to show."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.study import Study
from igkd_hpo.dashboard import graphs
from igkd_hpo.dashboard.graphs import Graph, study_graphs
from igkd_hpo.report import timeline
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open
from tests.fixtures.studies import STUDY

NOW = datetime(2026, 11, 21, 12, 0, 0)  # noqa: DTZ001 - Optuna's times are naive


def ended(
    number: int,
    value: float | None,
    state: TrialState = TrialState.COMPLETE,
    *,
    strength: float = 0.5,
    alpha: float = 0.5,
    probability: float = 0.1,
    minutes: int = 1,
    **attributes: Any,
) -> FrozenTrial:
    values = {"overlay_strength": strength, "alpha": alpha, "overlay_probability": probability}
    trial = create_trial(
        state=state,
        value=value,
        params={"alpha": alpha},
        distributions={"alpha": FloatDistribution(0, 1)},
        user_attrs={"hyperparameters": values, "worker": "one", **attributes},
        intermediate_values={1: 0.1, 2: value or 0.0},
    )
    trial.number, trial.datetime_start = number, NOW - timedelta(minutes=minutes)
    trial.datetime_complete = NOW if state.is_finished() else None
    return trial


Draw = Callable[..., dict[str, Graph]]


@pytest.fixture
def draw(study: SearchStudy) -> Draw:
    def draw(*trials: FrozenTrial, of: SearchStudy = study, curves: bool = True) -> dict[str, Graph]:
        found = study_graphs(of, trials, now=NOW, curves=curves)
        assert "NaN" not in json.dumps(found)
        return found

    return draw


def trace(graph: Graph, name: str) -> dict[str, Any]:
    (found,) = (one for one in graph["data"] if one["name"] == name)
    return found


def test_accuracy_over_the_overlay_is_colour(draw: Draw) -> None:
    graph = draw(
        ended(0, 0.9, control="kd", strength=0.5, alpha=0.9, probability=0.0),
        ended(1, 0.8, strength=0.25, alpha=0.75),
        ended(2, 0.95, strength=0.125, alpha=0.375),
        ended(3, 0.3, TrialState.PRUNED, strength=0.7, alpha=0.2),
        ended(4, None, TrialState.PRUNED),  # beyond a limit: not trained
        ended(5, None, TrialState.FAIL),
    )["accuracy-over-overlay"]
    complete, best = trace(graph, "complete"), trace(graph, "best so far")
    assert (complete["x"], complete["y"], complete["marker"]["color"]) == ([0.25, 0.125], [0.75, 0.375], [80.0, 95.0])
    assert (best["x"], best["y"]) == ([0.125], [0.375])
    assert trace(graph, "pruned, last value")["x"] == [0.7]
    control = trace(graph, "control kd")
    assert (control["x"], control["y"]) == ([0.0], [0.9])  # without overlays their strength says nothing
    assert graph["layout"]["xaxis"]["title"]["text"] == "overlay strength (0: no overlays)"
    assert graph["layout"]["yaxis"]["title"]["text"] == "alpha"
    assert complete["marker"]["colorbar"]["title"]["text"] == "validation accuracy, %"
    assert complete["text"] == ["trial 1: 80.00 %", "trial 2: 95.00 %"]


def test_a_bad_trial_does_not_flatten_the_colours(draw: Draw) -> None:
    values = (0.95, 0.94, 0.93, 0.92, 0.1)
    graph = draw(*(ended(number, value) for number, value in enumerate(values)))["accuracy-over-overlay"]
    assert trace(graph, "complete")["marker"]["cmin"] == pytest.approx(87.0)  # best - 4 * (best - median)
    assert trace(graph, "complete")["marker"]["cmax"] == 95.0


def test_where_one_is_fixed_accuracy_is_the_height(draw: Draw, storage: SharedStorage) -> None:
    def variant(**changes: Any) -> SearchStudy:
        file = parse_study(STUDY, source="study.yaml").model_dump(mode="json")
        file["name"] = "-".join(["variant", *changes])
        file["hyperparameters"] |= changes
        return create_or_open(storage, Study.model_validate_json(json.dumps(file)), n_trials=None, pins=None)

    one = draw(ended(0, 0.9, strength=0.3), of=variant(alpha=0.5))["accuracy-over-overlay"]
    assert (trace(one, "complete")["x"], trace(one, "complete")["y"]) == ([0.3], [90.0])
    assert one["layout"]["yaxis"]["title"]["text"] == "validation accuracy, %"
    assert "accuracy-over-overlay" not in draw(ended(0, 0.9), of=variant(alpha=0.5, overlay_strength=0.5))


def test_accuracy_over_size_is_there_when_sizes_differ(draw: Draw) -> None:
    alike = draw(ended(0, 0.9, parameters=1000), ended(1, 0.8, parameters=1000))
    assert "accuracy-over-size" not in alike
    graph = draw(ended(0, 0.9, parameters=1000), ended(1, 0.8, parameters=2000))["accuracy-over-size"]
    assert (trace(graph, "complete")["x"], trace(graph, "complete")["y"]) == ([1000, 2000], [90.0, 80.0])
    assert "type" not in graph["layout"]["xaxis"]
    wide = draw(ended(0, 0.9, parameters=1000), ended(1, 0.8, parameters=9000))["accuracy-over-size"]
    assert wide["layout"]["xaxis"]["type"] == "log"


def test_the_frontier_is_a_step_line_with_the_interval_of_one_seed(draw: Draw, study: SearchStudy) -> None:
    def of_size(number: int, value: float, size: int, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
        right = round(400 * value)
        worst = [{"name": "a", "images": 400, "right": right, "answered": 400, "mistaken_for": None}]
        classes = {"count": 1, "worst": worst, "runs": 1}
        values = make_control("kd", study.config.hyperparameters).hyperparameters
        trial = ended(number, value, state, parameters=size, classes=classes, seed=number)
        trial.set_user_attr("hyperparameters", values | {"alpha": number / 10})
        return trial

    trials = [of_size(0, 0.8, 1000), of_size(1, 0.9, 3000), of_size(2, 0.91, 4000)]
    others = [of_size(3, 0.7, 9000), of_size(4, 0.99, 500, TrialState.PRUNED)]
    graph = draw(*trials, *others)["accuracy-over-size"]
    line = trace(graph, "frontier (hollow: a tie)")
    assert (line["x"], line["y"]) == ([1000, 3000, 4000, 9000], [80.0, 90.0, 91.0, 91.0])
    assert line["marker"]["symbol"][:3] == ["circle", "circle", "circle-open"]
    assert line["line"]["shape"] == "hv"
    low, high = graph["data"][:2]
    assert (low["x"], high["fill"]) == (line["x"], "tonexty")
    assert all(below < value < above for below, value, above in zip(low["y"], line["y"], high["y"], strict=True))
    assert "by chance of the images" in high["name"]
    assert line["text"][0].startswith("trial 0: 80.00 % with 1,000 parameters")
    unknown = draw(*(without_classes(trial) for trial in trials))["accuracy-over-size"]
    names = [one["name"] for one in unknown["data"]]
    assert names.index("frontier (hollow: a tie)") < names.index("complete"), (
        "it would hide the trials that it leads to"
    )
    assert trace(unknown, "frontier (hollow: a tie)")["marker"]["symbol"] == ["circle"] * 3


def without_classes(trial: FrozenTrial) -> FrozenTrial:
    trial._user_attrs.pop("classes")
    return trial


def test_a_name_from_the_database_is_no_link(draw: Draw) -> None:
    evil = "<a href='javascript:x'>one</a>\x1b[2J\u202e"
    graphs = draw(ended(0, 0.9, worker=evil, control="student"), ended(1, 0.8, worker="two"))
    text = json.dumps(graphs, ensure_ascii=False)
    assert "<a" not in text
    assert "\u202e" not in text
    assert "&lt;a href='javascript:x'&gt;one&lt;/a&gt;\\\\x1b[2J\\\\u202e" in text


def test_each_worker_has_a_row_of_its_trials(draw: Draw) -> None:
    graph = draw(
        ended(0, 0.9, worker="one", minutes=10),
        ended(1, 0.4, TrialState.PRUNED, worker="two", minutes=5, attempts=2),
        ended(2, None, TrialState.RUNNING, worker="two", minutes=2),
        create_trial(state=TrialState.WAITING),
    )["workers"]
    assert [(one["name"], one["y"]) for one in graph["data"]] == [
        ("complete", ["one"]),
        ("pruned", ["two"]),
        ("running", ["two"]),
    ]
    assert trace(graph, "complete")["base"] == ["2026-11-21 11:50:00.000"]
    assert trace(graph, "complete")["x"] == [600_000]  # milliseconds
    assert trace(graph, "running")["x"] == [120_000]  # until now
    assert trace(graph, "pruned")["text"] == ["x2"]
    assert "attempt 2" in trace(graph, "pruned")["customdata"][0]
    assert graph["layout"]["yaxis"]["categoryarray"] == ["two", "one"]  # drawn from below


def test_learning_curves_are_few_lines_with_gaps(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "BEST_CURVES", 1)
    trials = [ended(0, 0.5), ended(1, 0.9), ended(2, 0.3, TrialState.PRUNED)]
    graph = draw(*trials)["learning-curves"]
    assert [one["name"] for one in graph["data"]] == ["pruned", "complete", "the best 1"]
    assert trace(graph, "the best 1")["x"] == [1, 2, None]
    assert trace(graph, "the best 1")["y"] == [10.0, 90.0, None]
    assert "learning-curves" not in draw(*trials, curves=False)


def test_a_large_study_is_thinned_and_keeps_its_best(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_POINTS", 10)
    monkeypatch.setattr(timeline, "MOST_BARS", 10)
    trials = [ended(number, number / 100, parameters=number) for number in range(1, 100)]
    found = draw(*trials)
    points = trace(found["accuracy-over-size"], "complete")
    assert len(points["x"]) == 10
    assert points["x"][-5:] == [95, 96, 97, 98, 99]
    assert found["workers"]["layout"]["title"]["text"] == "<b>Workers: the last 10 of 99 trials</b>"


def test_there_is_nothing_before_the_first_trial(draw: Draw) -> None:
    assert draw(create_trial(state=TrialState.WAITING)) == {}
