"""What the page reads of a study: optuna-dashboard's answer, kept, compressed and added to."""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any

import optuna
import pytest
from optuna_dashboard import save_note, wsgi

from igkd_hpo.dashboard import study_page
from igkd_hpo.dashboard.wsgi import buffer_response
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Paths
from tests.fixtures.dashboard import Request, requester
from tests.fixtures.studies import Run

ASK = "/api/studies/1?after="


@pytest.fixture
def request_page(storage: SharedStorage, study: SearchStudy, paths: Paths) -> Iterator[Request]:
    yield from requester(storage, paths)


def stock(storage: SharedStorage, after: int = 0) -> dict[str, Any]:
    """What optuna-dashboard itself answers, from a reading of its own."""
    apart = open_storage(storage.url.render_as_string(hide_password=False), create=False)
    query = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/1", "QUERY_STRING": f"after={after}"}
    found: dict[str, Any] = json.loads(buffer_response(wsgi(apart), query)[2])
    apart.engine.dispose()
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets what optuna-dashboard keeps grow too old for it; a test with it has that as it is."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Later":
            return super().now(tz) + timedelta(minutes=1)

    return lambda: monkeypatch.setattr("optuna_dashboard._storage.datetime", Later)


@pytest.fixture(autouse=True)
def nothing_is_kept_below(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """optuna-dashboard keeps the trials that it read for some seconds; what is tested here is what we keep."""
    if "later" in request.fixturenames:
        return
    monkeypatch.setattr("optuna_dashboard._app.get_trials", lambda _, storage, study: storage.get_all_trials(study))


def trials_shown(request_page: Request) -> list[str]:
    """The states of the trials that the page shows."""
    return [trial["state"] for trial in json.loads(request_page("GET", f"{ASK}0").content)["trials"]]


def test_trials_are_those_of_optuna_dashboard_however_often_they_are_asked(
    request_page: Request, storage: SharedStorage, run: Run
) -> None:
    steps = [
        lambda: run(0.5, 0.7),
        lambda: run(0.4, end="prune"),
        lambda: run(0.1, end="leave"),
        lambda: run(0.2, end="fail"),
        lambda: run(0.6, 0.8, 0.9),
    ]
    for step in steps:
        step()
        for after in (0, 1, 3, 99):
            ours, theirs = json.loads(request_page("GET", f"{ASK}{after}").content), stock(storage, after)
            assert ours["trials"] == theirs["trials"]
            for key in ("name", "directions", "best_trials", "has_intermediate_values", "artifacts"):
                assert ours[key] == theirs[key], key
            assert set(ours) == set(theirs)


def test_a_trial_that_ran_is_read_again_until_it_has_ended(
    request_page: Request, storage: SharedStorage, study: SearchStudy, run: Run
) -> None:
    claim = run(0.1, end="leave")
    assert json.loads(request_page("GET", f"{ASK}0").content)["trials"][0]["state"] == "Running"
    storage.set_trial_intermediate_value(claim.trial_id, 2, 0.3)
    (trial, *_) = json.loads(request_page("GET", f"{ASK}0").content)["trials"]
    assert [one["value"] for one in trial["intermediate_values"]] == [0.1, 0.3]
    study.optuna_study.tell(claim.number, 0.3)
    for _ in range(2):
        assert json.loads(request_page("GET", f"{ASK}0").content)["trials"][0]["state"] == "Complete"


def test_a_note_on_an_ended_trial_is_shown(request_page: Request, study: SearchStudy, run: Run) -> None:
    claim = run(0.5)
    assert json.loads(request_page("GET", f"{ASK}0").content)["trials"][0]["note"]["body"] == ""
    save_note(optuna.trial.Trial(study.optuna_study, claim.trial_id), "looked at")
    assert json.loads(request_page("GET", f"{ASK}0").content)["trials"][0]["note"]["body"] == "looked at"


def test_the_answer_is_compressed_for_who_takes_it(request_page: Request, run: Run) -> None:
    run(0.5)
    plain, packed = request_page("GET", f"{ASK}0"), request_page("GET", f"{ASK}0", **{"Accept-Encoding": "br, gzip"})
    assert (plain.headers["Content-Encoding"], packed.headers["Content-Encoding"]) == (None, "gzip")
    assert plain.headers["Vary"] == "Accept-Encoding"
    assert len(packed.content) < len(plain.content) / 2
    assert json.loads(gzip.decompress(packed.content))["trials"] == json.loads(plain.content)["trials"]


def test_a_study_that_is_not_there_is_not_found(request_page: Request) -> None:
    assert request_page("GET", "/api/studies/7?after=0").status == 404


def test_nothing_is_kept_of_a_study_that_is_not_there(storage: SharedStorage, study: SearchStudy) -> None:
    page = study_page.StudyPage(wsgi(storage), storage, annotate=False)
    for number in (study.study_id, 7, 8):
        query = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/api/studies/{number}", "QUERY_STRING": "after=0"}
        buffer_response(page, query)
    assert list(page._kept) == [study.study_id]


def test_what_optuna_dashboard_keeps_for_some_seconds_is_not_kept_longer(
    request_page: Request, storage: SharedStorage, study: SearchStudy, run: Run, later: Callable[[], None]
) -> None:
    run(0.5)
    claim = run(0.1, end="leave")
    assert trials_shown(request_page) == ["Complete", "Running"]
    study.optuna_study.tell(claim.number, 0.3)
    run(0.6)
    assert trials_shown(request_page) in (["Complete", "Running"], ["Complete"] * 3)
    later()
    assert trials_shown(request_page) == ["Complete"] * 3
    assert json.loads(request_page("GET", f"{ASK}0").content)["trials"] == stock(storage)["trials"]


def test_strange_questions_go_to_optuna_dashboard(request_page: Request, run: Run) -> None:
    run(0.5)
    assert request_page("GET", f"{ASK}-1").status == 400
    assert request_page("GET", "/api/studies/1").status == 200
    assert json.loads(request_page("GET", f"{ASK}0&x=1").content)["plotly_graph_objects"] == []


def test_a_study_of_another_tool_stays_as_it_is(request_page: Request, storage: SharedStorage) -> None:
    other = optuna.create_study(storage=storage, study_name="other")
    other.optimize(lambda trial: trial.suggest_float("alpha", 0, 1), n_trials=2)
    save_note(other, "mine")
    shown = json.loads(request_page("GET", f"/api/studies/{other._study_id}?after=0").content)
    assert (shown["plotly_graph_objects"], shown["note"]["body"], len(shown["trials"])) == ([], "mine", 2)


def test_the_note_begins_with_where_the_study_stands(request_page: Request, study: SearchStudy, run: Run) -> None:
    save_note(study.optuna_study, "what is searched")
    run(0.5)
    body = json.loads(request_page("GET", f"{ASK}0").content)["note"]["body"]
    assert body.startswith("## Best so far: 50.00 % on validation (the control student, trial 0)")
    assert body.endswith("what is searched")
    run(0.75)
    assert "75.00 %" in json.loads(request_page("GET", f"{ASK}0").content)["note"]["body"]


def test_where_people_write_the_note_is_theirs(
    storage: SharedStorage, study: SearchStudy, paths: Paths, run: Run
) -> None:
    save_note(study.optuna_study, "what is searched")
    run(0.5)
    for request in requester(storage, paths, write=True):
        assert json.loads(request("GET", f"{ASK}0").content)["note"]["body"] == "what is searched"


def test_many_curves_become_one_graph(request_page: Request, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(0.5, 0.6)
    run(0.5, 0.7)
    few = json.loads(request_page("GET", f"{ASK}0").content)
    monkeypatch.setattr(study_page, "MOST_CURVES", 1)
    many = json.loads(request_page("GET", f"{ASK}2").content)
    assert (few["has_intermediate_values"], many["has_intermediate_values"]) == (True, False)
    assert "learning-curves" not in [graph["id"] for graph in few["plotly_graph_objects"]]
    assert "learning-curves" in [graph["id"] for graph in many["plotly_graph_objects"]]


def test_a_trial_that_another_version_wrote_is_shown_as_failed(
    request_page: Request, storage: SharedStorage, run: Run
) -> None:
    claim = run(0.5, end="leave")
    storage.set_trial_user_attr(claim.trial_id, "execution", {"unknown": 1})
    storage.set_trial_state_values(claim.trial_id, optuna.trial.TrialState.COMPLETE, [0.5])
    shown = json.loads(request_page("GET", f"{ASK}0").content)
    assert shown["trials"][0]["state"] == "Fail"
    assert "execution" in str(shown["trials"][0]["user_attrs"])
    assert shown["note"]["body"].startswith("## No trial has completed yet")


def test_a_study_that_another_version_wrote_says_so_and_shows_its_trials(
    request_page: Request, study: SearchStudy, run: Run
) -> None:
    run(0.5)
    study.storage.set_study_user_attr(study.study_id, "n_trials", "many")
    shown = json.loads(request_page("GET", f"{ASK}0").content)
    assert shown["trials"][0]["values"] == [0.5]
    assert "n_trials is 'many'" in shown["note"]["body"]


def test_a_summary_that_cannot_be_made_leaves_the_trials(
    request_page: Request, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(0.5)
    monkeypatch.setattr("igkd_hpo.dashboard.study_page.live_summary", lambda *_: {}["no such key"])
    shown = json.loads(request_page("GET", f"{ASK}0").content)
    assert shown["trials"][0]["values"] == [0.5]
    assert shown["note"]["body"].startswith("The summary and the graphs cannot be made: `KeyError")
    assert "cannot be made" in caplog.text


def test_the_page_has_a_style_for_dark_graphs_and_phones(request_page: Request) -> None:
    for path in ("/dashboard", "/dashboard/studies/1"):
        page = request_page("GET", path)
        assert b"user-defined-plot" in page.content
        assert page.content.count(b"</head>") == 1
        assert int(page.headers["Content-Length"]) == len(page.content)
    assert request_page("GET", "/dashboard", **{"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}).status == 200
