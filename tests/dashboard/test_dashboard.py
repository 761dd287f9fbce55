"""The dashboard: what it lets through, what it refuses, and how it starts and ends."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta

from igkd_hpo.dashboard.server import READING, serve
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.settings import Paths
from tests.fixtures.dashboard import Request, filled, requester, routes

# Read in the source of optuna-dashboard 0.21.0, one by one: none of these writes. A new one has to be read as well.
READING_ROUTES = {
    "/",
    "/dashboard<:re:(/.*)?>",
    "/api/meta",
    "/api/studies",
    "/api/studies/<study_id:int>",
    "/api/studies/<study_id:int>/param_importances",
    "/api/studies/<study_id:int>/plot/<plot_type>",
    "/csv/<study_id:int>",
    "/favicon.ico",
    "/static/<filename:path>",
    "/incompatible-rdb-schema",
    "/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>",
    "/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>",
}


@pytest.fixture
def url(paths: Paths) -> str:
    return f"sqlite:///{paths.database}"


@pytest.fixture
def request_page(searched: SharedStorage, paths: Paths) -> Iterator[Request]:
    yield from requester(searched, paths)


def dump(paths: Paths) -> list[str]:
    with closing(sqlite3.connect(paths.database)) as connection:
        return list(connection.iterdump())


def test_the_page_and_its_data_are_served(request_page: Request) -> None:
    page = request_page("GET", "/dashboard")
    assert page.status == 200
    assert b"bundle.js" in page.content
    study = json.loads(request_page("GET", "/api/studies/1").content)
    assert study["best_trials"][0]["values"] == [0.6]
    assert [trial["state"] for trial in study["trials"]] == ["Complete", "Complete", "Running"]


def test_trials_that_end_meanwhile_are_shown(request_page: Request, searched: SharedStorage, url: str) -> None:
    assert json.loads(request_page("GET", "/api/studies").content)["study_summaries"][0]["study_name"] == "digits"
    optuna.create_study(storage=open_storage(url, create=False), study_name="cifar10")
    names = [s["study_name"] for s in json.loads(request_page("GET", "/api/studies").content)["study_summaries"]]
    assert sorted(names) == ["cifar10", "digits"]


def test_reading_routes_are_the_ones_whose_source_was_read(searched: SharedStorage) -> None:
    assert {rule for method, rule in routes(searched) if method in READING} == READING_ROUTES


def test_reading_changes_nothing(request_page: Request, searched: SharedStorage, paths: Paths) -> None:
    before = dump(paths)
    for rule in READING_ROUTES:
        for method in READING:
            assert request_page(method, filled(rule), **{"Accept-Encoding": "gzip"}).status != 403
    assert dump(paths) == before


def test_everything_else_is_refused_and_changes_nothing(
    request_page: Request, searched: SharedStorage, paths: Paths
) -> None:
    writing = [(method, rule) for method, rule in routes(searched) if method not in READING]
    assert len(writing) > 10
    before = dump(paths)
    body = {
        "state": "Complete",
        "values": [99],
        "study_name": "new",
        "directions": ["maximize"],
        "body": "",
        "version": 1,
    }
    body |= {"user_attrs": {"a": 1}, "file": "data:text/plain;base64,aGk=", "filename": "a.txt"}
    assert request_page("get", "/dashboard").status == 400
    for method, rule in [*writing, ("TRACE", "/dashboard"), ("PATCH", "/api/studies/1")]:
        refused = request_page(method, filled(rule), body)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS"), rule
        assert "--write" in json.loads(refused.content)["reason"]
    assert dump(paths) == before


def test_a_method_cannot_be_smuggled_past(request_page: Request, paths: Paths) -> None:
    before = dump(paths)
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        request_page("GET", "/api/studies/1", **{header: "DELETE"})
    request_page("GET", "/api/studies/1?_method=DELETE")
    assert dump(paths) == before


def test_write_lets_people_write(searched: SharedStorage, paths: Paths) -> None:
    for request in requester(searched, paths, write=True):
        assert request("POST", "/api/trials/3/user-attrs", {"user_attrs": {"seen": True}}).status == 204
    assert optuna.load_study(storage=searched, study_name="digits").trials[2].user_attrs == {"seen": True}


def test_an_artifact_is_shown_as_data(request_page: Request, searched: SharedStorage) -> None:
    trial = searched.get_all_trials(1)[2]
    (meta,) = get_all_artifact_meta(trial, storage=searched)
    picture = request_page("GET", f"/artifacts/1/{trial._trial_id}/{meta.artifact_id}")
    assert (picture.status, picture.content) == (200, b"\x89PNG")
    assert picture.headers["Content-Security-Policy"] == "sandbox"
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert picture.headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::", "192.168.0.7"]
)
def test_a_foreign_name_gets_nothing_from_a_local_dashboard(request_page: Request, name: str) -> None:
    refused = request_page("GET", "/api/studies", Host=name)
    assert refused.status == 403
    assert "--host" in json.loads(refused.content)["reason"]


@pytest.mark.parametrize("name", ["localhost:1", "LOCALHOST", "127.0.0.1:8080", "[::1]:8080", "127.0.0.9"])
def test_local_names_are_answered(request_page: Request, name: str) -> None:
    assert request_page("GET", "/api/studies", Host=name).status == 200


def test_a_dashboard_for_other_hosts_answers_to_any_name(searched: SharedStorage, paths: Paths) -> None:
    token = "0123456789abcdef"
    for request in requester(searched, paths, host="0.0.0.0", token=token):
        headers = {"Host": "dashboard.example", "Authorization": f"Bearer {token}"}
        assert request("GET", "/api/studies", **headers).status == 200


def test_a_port_in_use_is_named(searched: SharedStorage, url: str, paths: Paths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port}: Address already in use; .*--port"):
            serve(url, paths, port=port, on_ready=pytest.fail)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("192.0.2.1", 8080), ("no host", 8080)])
def test_an_address_that_cannot_be_listened_on_is_named(
    searched: SharedStorage, url: str, paths: Paths, host: str, port: int
) -> None:
    with pytest.raises(UsageError, match=f"{host} port {port}"):
        serve(url, paths, port=port, host=host, on_ready=pytest.fail)


def test_a_missing_database_is_not_made(url: str, paths: Paths) -> None:
    with pytest.raises(UsageError, match=r"igkd_hpo\.db"):
        serve(url, paths, port=0, on_ready=pytest.fail)
    assert not paths.root.exists()


def test_a_database_that_is_none_is_named(url: str, paths: Paths) -> None:
    paths.root.mkdir()
    paths.database.write_text("no database " * 100)
    with pytest.raises((StorageError, UsageError), match=r"igkd_hpo\.db"):
        serve(url, paths, port=0, on_ready=pytest.fail)


def test_ctrl_c_ends_it_quietly(searched: SharedStorage, url: str, paths: Paths) -> None:
    code = (
        "import sys; from pathlib import Path; from igkd_hpo.settings import Paths;"
        "from igkd_hpo.dashboard.server import serve;"
        "serve(sys.argv[1], Paths(root=Path(sys.argv[2])), port=0, on_ready=lambda url: print(url, flush=True))"
    )
    command = [sys.executable, "-c", code, url, str(paths.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        port = int(address.removesuffix("/dashboard").rsplit(":", 1)[1])
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as kept_open:
            kept_open.connect()  # a browser keeps connections open; they do not hold the end up
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
    assert (process.returncode, out, err) == (0, "", "")


def test_importing_it_does_not_bring_the_page(repository: Path) -> None:
    heavy = "{'optuna_dashboard', 'sklearn', 'torch'}"
    code = f"import sys, igkd_hpo.dashboard.server; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
