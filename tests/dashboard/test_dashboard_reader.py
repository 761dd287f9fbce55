"""The dashboard and `status` on PostgreSQL as a role that may only read, made by the statements that we ship."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import ProgrammingError

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.study import Study
from igkd_hpo.search.status import status
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import create_or_open
from igkd_hpo.settings import Paths
from tests.dashboard.test_dashboard import READING_ROUTES
from tests.fixtures.dashboard import filled, requester


@pytest.fixture
def statements(repository: Path) -> str:
    """The statements, for the owner and the database of this test."""
    return (repository / "storage" / "reader.sql").read_text(encoding="utf-8")


@pytest.fixture
def reader_url(postgresql_url: str, statements: str, study_file: Study) -> Iterator[str]:
    """URL of a database with a study, for the role that may read; it was made before there was any table."""
    url = make_url(postgresql_url)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as owner:
        owner.execute(statements)
        written = open_storage(postgresql_url, create=True)
        pins = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
        create_or_open(written, study_file, n_trials=None, pins=pins)
        written.engine.dispose()
        yield url.set(username="igkd_hpo_reader").render_as_string(False)
        owner.execute("DROP OWNED BY igkd_hpo_reader; DROP ROLE igkd_hpo_reader")


@pytest.fixture
def storage(reader_url: str) -> Iterator[SharedStorage]:
    opened = open_storage(reader_url, create=False)
    yield opened
    opened.engine.dispose()


def test_the_page_and_status_need_to_read_only(storage: SharedStorage, paths: Paths, postgresql_url: str) -> None:
    for request in requester(storage, paths):
        summaries = json.loads(request("GET", "/api/studies").content)["study_summaries"]
        assert [study["study_name"] for study in summaries] == ["digits"]
        page = json.loads(request("GET", f"/api/studies/{summaries[0]['study_id']}").content)
        assert "cannot be made" not in page["note"]["body"]
        for_the_reader = {rule: request("GET", filled(rule)).status for rule in READING_ROUTES}
    owner = open_storage(postgresql_url, create=False)
    for request in requester(owner, paths):
        assert for_the_reader == {rule: request("GET", filled(rule)).status for rule in READING_ROUTES}
    owner.engine.dispose()
    assert [study.name for study in status(storage)] == ["digits"]


def test_the_role_writes_nothing(storage: SharedStorage, paths: Paths) -> None:
    for statement in ("DELETE FROM studies", "CREATE TABLE x (y int)", "INSERT INTO version_info VALUES (9, 9, 'x')"):
        with pytest.raises(ProgrammingError, match="permission denied"), storage.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    (study_id,) = (study._study_id for study in storage.get_all_studies())
    for request in requester(storage, paths, write=True):
        assert request("DELETE", f"/api/studies/{study_id}").status >= 500
    assert len(storage.get_all_studies()) == 1


def test_the_role_is_the_one_that_the_services_use(repository: Path, statements: str) -> None:
    (role,) = re.findall(r"CREATE ROLE (\w+)", statements)
    for name in ("docker-compose.yml", "docs/deploy/kubernetes.yaml"):
        assert f"postgresql+psycopg://{role}@database/igkd_hpo" in (repository / name).read_text(encoding="utf-8")
