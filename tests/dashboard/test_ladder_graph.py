"""The ladder in the dashboard: its graph and its sentences, on the search's page and on its own."""

from datetime import datetime

import pytest

from igkd_hpo.dashboard.graphs import Graph, study_graphs
from igkd_hpo.dashboard.summary import live_summary
from igkd_hpo.search.study import SearchStudy
from tests.fixtures.ladders import begin_ladder, climb
from tests.fixtures.studies import Run


def graph(study: SearchStudy) -> Graph | None:
    graphs = study_graphs(study, study.trials(), now=datetime(2026, 11, 28), curves=False)  # noqa: DTZ001 - Optuna's are naive
    return graphs.get("accuracy-over-compression")


def test_a_ladder_is_drawn_and_told_when_it_was_tested(study: SearchStudy, run: Run) -> None:
    for accuracy in (0.70, 0.75, 0.80):
        run(0.5, 0.6, accuracy)
    linked = begin_ladder(study)
    assert graph(study) is graph(linked) is None
    assert "A ladder has begun: 0 of 12 trainings of digits-ladder are done." in live_summary(study, study.trials())
    climb(
        linked,
        {"4.1 times distilled": 0.9, "4.1 times plain": 0.9, "12 times distilled": 0.95, "12 times plain": 0.9},
    )
    drawn = graph(study)
    assert drawn is not None
    assert drawn == graph(linked)
    assert drawn["layout"]["xaxis"]["type"] == "log"
    plain, distilled = drawn["data"]
    assert (plain["name"], distilled["name"]) == ("plain", "distilled")
    assert plain["y"] == [90.0, 90.0]
    assert distilled["y"] == [90.0, 95.0]
    assert distilled["x"] == pytest.approx([4.115, 12.04], rel=0.03)
    # Half a point up and down over three seeds: 4.303 * 0.5 / sqrt(3).
    assert distilled["error_y"]["array"] == distilled["error_y"]["arrayminus"] == [1.24, 1.24]
    for page in (study, linked):
        assert "Distillation helps at 12 times (+5.0 points" in live_summary(page, page.trials())
