"""Commands that only look need no right to write, neither into a file nor into tables."""

import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

import igkd_hpo
from igkd_hpo.dashboard.server import application
from igkd_hpo.dashboard.wsgi import buffer_response
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open
from igkd_hpo.settings import Paths
from tests.fixtures.rights import as_anybody
from tests.fixtures.studies import COST, EXECUTION, study_file

__all__ = ["study_file"]


def search(url: str, file: igkd_hpo.StudyFile) -> None:
    """A study with one completed trial and one that runs."""
    storage = open_storage(url, create=True)
    study = create_or_open(storage, file, n_trials=2, pins=None)
    leases = Leases(study)
    for _ in range(2):
        claim = leases.claim(Worker(name="worker-0", process=this_process()))
    assert isinstance(claim, Claim)
    leases.report(claim, epoch=1, accuracy=0.7)
    leases.complete(claim, 0.7, {"execution": EXECUTION, **COST})
    storage.engine.dispose()


def look(url: str, folder: Path) -> str:
    """Use each command that only looks; what the summary says."""
    (listed,) = igkd_hpo.status(storage=url)
    assert listed.counts.complete == listed.counts.running == 1
    study = igkd_hpo.open_study(storage=url)
    assert [trial.state for trial in study.trials] == ["RUNNING", "COMPLETE"]
    assert study.best.number == 1
    assert study.export(folder / "best.yaml").path.exists()
    storage = open_storage(url, create=False)
    page = application(storage, Paths(root=folder / "none"), host="127.0.0.1", write=False)
    for path in ("/api/studies", "/api/studies/1"):
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "localhost", "wsgi.input": io.BytesIO()}
        status, _, body = buffer_response(page, given | {"QUERY_STRING": ""})
        assert status.startswith("200")
        assert b"digits" in body
    storage.engine.dispose()
    return study.summary()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def mode(bits: int, *paths: Path) -> Iterator[None]:
    before = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(bits)
    try:
        yield
    finally:
        for path, old in zip(paths, before, strict=True):
            path.chmod(old)


def test_a_study_in_a_read_only_folder_can_be_looked_at(
    sqlite_url: str, study_file: igkd_hpo.StudyFile, tmp_path: Path
) -> None:
    search(sqlite_url, study_file)
    file = Path(make_url(sqlite_url).database or "")
    before = content(file.parent)
    for bits, closed in ((0o555, file.parent), (0o444, file)):
        with mode(bits, closed):
            assert as_anybody(lambda: look(sqlite_url, tmp_path)).startswith("digits: 1 of 2 trials finished")
            with pytest.raises(StorageError, match="read-only"):
                as_anybody(lambda: igkd_hpo.open_study(storage=sqlite_url).stop())
        assert content(file.parent) == before


def test_what_others_write_meanwhile_is_seen(sqlite_url: str, study_file: igkd_hpo.StudyFile, tmp_path: Path) -> None:
    search(sqlite_url, study_file)
    file = Path(make_url(sqlite_url).database or "")
    renamed = "UPDATE study_user_attributes SET value_json = '3' WHERE key = 'n_trials'"
    with closing(sqlite3.connect(file, isolation_level=None)) as writer, mode(0o555, file.parent):
        writer.execute(renamed)  # it is in the log, and not in the file yet
        assert as_anybody(lambda: look(sqlite_url, tmp_path)).startswith("digits: 1 of 3 trials finished")


def test_a_role_that_may_only_read_can_look(
    postgresql_url: str, study_file: igkd_hpo.StudyFile, tmp_path: Path
) -> None:
    search(postgresql_url, study_file)
    with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS reader")
        owner.execute("CREATE ROLE reader LOGIN")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    url = make_url(postgresql_url).set(username="reader").render_as_string(hide_password=False)
    try:
        assert look(url, tmp_path).startswith("digits: 1 of 2 trials finished")
        with pytest.raises(StorageError, match="may write"):
            igkd_hpo.open_study(storage=url).stop()
    finally:
        with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as owner:
            owner.execute("DROP OWNED BY reader")
            owner.execute("DROP ROLE reader")


def test_an_export_goes_to_a_pipe_and_not_in_its_place(
    sqlite_url: str, study_file: igkd_hpo.StudyFile, tmp_path: Path
) -> None:
    search(sqlite_url, study_file)
    study, pipe, closed = igkd_hpo.open_study(storage=sqlite_url), tmp_path / "pipe", tmp_path / "closed"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert not study.export(pipe).replaced
    assert b"digits-best" in os.read(reader, 1 << 16)
    os.close(reader)
    assert pipe.is_fifo()
    closed.mkdir(mode=0)
    with pytest.raises(UsageError, match="Permission denied"):
        as_anybody(lambda: study.export(closed / "best.yaml"))
    closed.chmod(0o700)
