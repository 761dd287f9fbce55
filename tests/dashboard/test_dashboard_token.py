"""The dashboard's token: nothing is shown without it, and it shows up nowhere."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from igkd_hpo.dashboard.server import application, serve
from igkd_hpo.dashboard.token import check_token, new_token
from igkd_hpo.errors import UsageError
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.settings import Paths
from tests.fixtures.dashboard import Request, filled, requester, routes

TOKEN = "correct-horse.battery_staple~42"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def request_page(searched: SharedStorage, paths: Paths) -> Iterator[Request]:
    """A dashboard that would let everything through but for the token."""
    yield from requester(searched, paths, host="0.0.0.0", write=True, token=TOKEN)


def test_every_route_is_refused_without_the_token(request_page: Request, searched: SharedStorage) -> None:
    every = [(method, filled(rule)) for method, rule in routes(searched)]
    assert len(every) > 25
    reading = [("HEAD", path) for method, path in every if method == "GET"]
    others = [("GET", "/no-such-page"), ("GET", "//"), ("OPTIONS", "/dashboard"), ("TRACE", "/")]
    before = [trial.state for trial in searched.get_all_trials(1)]
    for method, path in [*every, *reading, *others]:
        refused = request_page(method, path, None if method in {"GET", "HEAD"} else {})
        assert refused.status == 401, (method, path)
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert refused.headers["Set-Cookie"] is None
        assert TOKEN.encode() not in refused.content
        if method != "HEAD":
            assert "?token=" in json.loads(refused.content)["reason"]
    assert [trial.state for trial in searched.get_all_trials(1)] == before


def test_what_is_almost_the_token_is_refused(request_page: Request) -> None:
    almost = [
        {"Authorization": TOKEN},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"Authorization": "Bearer \xe9\xff"},
        {"Cookie": f"token={TOKEN}"},
        {"Cookie": TOKEN},
        {"Cookie": ";;=;"},
        {"X-Token": TOKEN},
    ]
    for headers in almost:
        assert request_page("GET", "/api/studies", **headers).status == 401, headers
    for query in ("token=", f"token={TOKEN[:-1]}", f"token={TOKEN}&token=x", f"Token={TOKEN}", "token=%C3%A9%ff"):
        assert request_page("GET", f"/dashboard?{query}").status == 401, query
        assert request_page("GET", f"/dashboard?{query}", Cookie="a=b", Authorization="Bearer x").status == 401, query


def test_the_token_in_the_address_opens_the_door_to_readers_only(request_page: Request) -> None:
    for method in ("POST", "DELETE", "PUT", "HEAD"):
        assert request_page(method, f"/api/studies/1?token={TOKEN}").status == 401


def test_first_use_makes_a_cookie_that_scripts_and_other_sites_cannot_use(request_page: Request) -> None:
    entrance = request_page("GET", f"/dashboard/studies/1?token={TOKEN}")
    assert entrance.status == 200
    assert b'content="0; url=?"' in entrance.content
    assert TOKEN.encode() not in entrance.content
    assert entrance.headers["Cache-Control"] == "no-store"
    assert entrance.headers["Referrer-Policy"] == "no-referrer"

    cookie, *attributes = entrance.headers["Set-Cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    page = request_page("GET", "/dashboard/studies/1", Cookie=f"other=1; {cookie}")
    assert (page.status, b"bundle.js" in page.content) == (200, True)
    assert page.headers["Set-Cookie"] is None
    assert request_page("GET", "/api/studies", Cookie=cookie).status == 200
    name = cookie.partition("=")[0]
    assert request_page("GET", "/api/studies", Cookie=f"{name}={TOKEN[:-1]}").status == 401


def test_scripts_send_a_header(request_page: Request) -> None:
    studies = request_page("GET", "/api/studies", **BEARER)
    assert json.loads(studies.content)["study_summaries"][0]["study_name"] == "digits"
    assert request_page("GET", "/api/studies", Authorization=f"bearer  {TOKEN}").status == 200


def test_two_dashboards_of_one_host_keep_their_cookies_apart(searched: SharedStorage, paths: Paths) -> None:
    names = set()
    for token in (TOKEN, "another-token-of-16"):
        for request in requester(searched, paths, host="0.0.0.0", token=token):
            names.add(request("GET", f"/?token={token}").headers["Set-Cookie"].partition("=")[0])
    assert len(names) == 2


def test_read_only_stays_read_only_with_the_token(searched: SharedStorage, paths: Paths) -> None:
    for request in requester(searched, paths, host="0.0.0.0", token=TOKEN):
        assert request("DELETE", "/api/studies/1", **BEARER).status == 405


def test_a_token_is_asked_for_on_this_machine_too_when_one_is_set(searched: SharedStorage, paths: Paths) -> None:
    for request in requester(searched, paths, token=TOKEN):
        assert request("GET", "/api/studies").status == 401
        assert request("GET", "/api/studies", **BEARER).status == 200
        assert request("GET", "/api/studies", **BEARER, Host="evil.example").status == 403


def test_no_dashboard_for_other_hosts_without_a_token(searched: SharedStorage, paths: Paths) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        application(searched, paths, host="0.0.0.0", write=False)


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "x" * 15 + " ", "x" * 16 + "\n", "ä" * 16, "x" * 16 + ";"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str, paths: Paths) -> None:
    with pytest.raises(UsageError, match="openssl rand") as raised:
        serve(f"sqlite:///{paths.database}", paths, port=0, on_ready=pytest.fail, token=token)
    assert not token or token not in str(raised.value)


def test_new_tokens_are_tokens_and_differ() -> None:
    made = {check_token(new_token()) for _ in range(100)}
    assert len(made) == 100


def test_requests_are_not_logged(
    request_page: Request, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        request_page("GET", f"/dashboard?token={TOKEN}")
        request_page("GET", f"/dashboard?token={TOKEN}x")
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("given", [None, TOKEN])
def test_a_token_that_was_made_is_printed_once_and_a_given_one_never(
    searched: SharedStorage, paths: Paths, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is not None:
        monkeypatch.setenv("IGKD_HPO_DASHBOARD_TOKEN", given)
    monkeypatch.setenv("IGKD_HPO_STORAGE", f"sqlite:///{paths.database}")
    command = [sys.executable, "-m", "igkd_hpo", "dashboard", "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://0\.0\.0\.0:(\d+)/dashboard(?:\?token=(\S+))?", said)
        assert found is not None, said
        token = given or check_token(found[2])
        with closing(HTTPConnection("127.0.0.1", int(found[1]), timeout=30)) as connection:
            connection.request("GET", "/api/studies", headers={"Authorization": f"Bearer {token}"})
            status = connection.getresponse().status
        arguments = psutil.Process(process.pid).cmdline()
        process.terminate()
        said += "".join(process.communicate(timeout=30))
    assert status == 200
    assert said.count(token) == (1 if given is None else 0)
    assert token not in " ".join(arguments)


def test_the_dashboard_of_a_new_server_waits_for_its_first_study(postgresql_url: str, paths: Paths) -> None:
    class Ready(Exception):
        pass

    def ready(url: str) -> None:
        raise Ready(url)

    with pytest.raises(Ready, match=r"^http://127"):
        serve(postgresql_url, paths, port=0, on_ready=ready)
    storage = open_storage(postgresql_url, create=False)
    for request in requester(storage, paths):
        assert json.loads(request("GET", "/api/studies").content) == {"study_summaries": []}
    storage.engine.dispose()


def test_the_variable_is_in_the_guide(repository: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (repository / "docs" / "guide").glob("*.md")]
    assert any("IGKD_HPO_DASHBOARD_TOKEN" in page for page in pages)
