"""What other sites' pages and idle connections can do to the dashboard: nothing."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import optuna
import pytest

from igkd_hpo.dashboard.origin import is_of_another_site, is_sent_to_loopback
from igkd_hpo.dashboard.server import IDLE_SECONDS, READING, THREADS, application, listen
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.settings import Paths
from tests.fixtures.dashboard import Request, filled, requester, routes, running

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},  # another port of this machine
    {"Origin": "http://localhost:1"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]
BODY = {"state": "Complete", "values": [99], "study_name": "new", "directions": ["maximize"], "body": "", "version": 1}
BODY |= {"user_attrs": {"a": 1}, "file": "data:text/plain;base64,aGk=", "filename": "a.txt"}


@pytest.fixture(params=[False, True], ids=["read-only", "--write"])
def request_page(searched: SharedStorage, paths: Paths, request: pytest.FixtureRequest) -> Iterator[Request]:
    yield from requester(searched, paths, write=request.param)


def test_no_writing_route_takes_a_request_of_another_site(request_page: Request, searched: SharedStorage) -> None:
    writing = [(method, rule) for method, rule in routes(searched) if method not in READING]
    assert len(writing) > 10
    for method, rule in writing:
        for headers in FOREIGN:
            refused = request_page(method, filled(rule), BODY, **headers)
            assert refused.status == 403, (method, rule, headers)
            assert "another site" in json.loads(refused.content)["reason"]
    studies = optuna.get_all_study_summaries(searched)
    assert [(study.study_name, study.n_trials) for study in studies] == [("digits", 3)]
    assert "a" not in searched.get_all_trials(1)[2].user_attrs


def test_the_dashboards_own_page_and_scripts_write(searched: SharedStorage, paths: Paths) -> None:
    for request in requester(searched, paths, write=True):
        url = "/api/trials/3/user-attrs"
        own = {"Host": "localhost:8080", "Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
        assert request("POST", url, {"user_attrs": {"by": "page"}}, **own).status == 204
        assert request("POST", url, {"user_attrs": {"by": "script"}}).status == 204


@pytest.mark.parametrize(
    "authority",
    ["evil.example@127.0.0.1", "127.0.0.1@evil.example", "evil.example#@127.0.0.1", "127.0.0.1/evil.example",
     "evil.example\\@localhost", "localhost:80@evil.example", "127.0.0.1, evil.example", "127.0.0.1:8080:8080",
     "localhost.evil.example", "[127.0.0.1", "localhost:x", "127.0.0.1?", "[::1]evil.example", "127.1", "0x7f.0.0.1",
     " "],
)  # fmt: skip
def test_no_trick_makes_another_name_local(authority: str) -> None:
    assert not is_sent_to_loopback({"HTTP_HOST": authority})


def test_a_proxy_may_take_https_and_must_keep_the_name() -> None:
    assert not is_of_another_site({"HTTP_HOST": "dash.example", "HTTP_ORIGIN": "https://dash.example"})
    assert is_of_another_site({"HTTP_HOST": "127.0.0.1:8080", "HTTP_ORIGIN": "https://dash.example"})
    assert is_of_another_site({"HTTP_HOST": "dash.example", "HTTP_ORIGIN": "https://x@dash.example"})
    assert is_of_another_site({"HTTP_ORIGIN": "https://dash.example"})


def test_idle_connections_take_no_threads_hold_nobody_up_and_are_closed(searched: SharedStorage, paths: Paths) -> None:
    page = application(searched, paths, host="127.0.0.1", write=False)
    before = threading.active_count()
    with running(listen(page, "127.0.0.1", 0)) as server, ExitStack() as stack:
        address = ("127.0.0.1", int(server.effective_port))
        idle = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(200)]
        for connection in idle[::2]:
            connection.sendall(b"GET /api/studies HTTP/1.1\r\nHost: localhost\r\nX-Never")
        for connection in idle[1::4]:
            connection.sendall(b"POST /api/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        asking = stack.enter_context(socket.create_connection(address, timeout=30))
        asking.sendall(b"GET /api/meta HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert asking.recv(100).startswith(b"HTTP/1.1 200")
        assert threading.active_count() <= before + THREADS + 1
        later = time.time() + IDLE_SECONDS + 1  # what the server does by its own clock after that time
        server.trigger.pull_trigger(lambda: server.maintenance(later))
        assert [connection.recv(100) for connection in idle] == [b""] * 200


@pytest.mark.parametrize(
    ("request_sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"POST /api/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000, b"413"),
    ],
)
def test_more_than_the_page_sends_is_refused(
    searched: SharedStorage, paths: Paths, request_sent: bytes, status: bytes
) -> None:
    page = application(searched, paths, host="127.0.0.1", write=False)
    with running(listen(page, "127.0.0.1", 0)) as server:
        address = ("127.0.0.1", int(server.effective_port))
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(request_sent)
            assert connection.recv(100).split()[1] == status


def test_an_artifact_is_contained_by_whatever_address_it_is_asked_for(searched: SharedStorage, paths: Paths) -> None:
    running = searched.get_all_trials(1)[2]
    name = next(json.loads(value)["artifact_id"] for key, value in running.system_attrs.items() if "artifacts" in key)
    for request in requester(searched, paths):
        path = f"artifacts/1/{running._trial_id}/{name}"
        assert request("GET", f"/{path}").status == 200
        for address in (f"/{path}", f"/%FF{path}", f"/arti%FEfacts{path[9:]}", f"//{path}", f"/%C3{path}"):
            answer = request("GET", address)
            assert answer.status == 404 or answer.getheader("Content-Security-Policy") == "sandbox", address
            assert answer.getheader("Access-Control-Allow-Origin") is None, address


def test_a_number_that_no_study_has_is_not_found(searched: SharedStorage, paths: Paths) -> None:
    for request in requester(searched, paths):
        for number in (2**63, 10**30, int("9" * 4000)):
            for path in ("/api/studies/", "/csv/"):
                assert request("GET", f"{path}{number}").status == 404
