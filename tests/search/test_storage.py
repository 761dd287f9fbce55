"""Which databases are accepted, what is said about the others, and what an outage looks like."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import URL, Engine, event, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError

from igkd_hpo.config.study import Study
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.search import lock
from igkd_hpo.search import storage as module
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.optuna_internals import newest_revision
from igkd_hpo.search.storage import SharedStorage, open_storage, storage_errors
from igkd_hpo.search.storage_url import check_url, mask
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study, study_names
from igkd_hpo.settings import sqlite_url
from tests.fixtures.rights import as_anybody


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:secret@h/d", "write postgresql+psycopg://"),
        ("postgresql+psycopg2://u:secret@h/d", "write postgresql+psycopg://"),
        ("postgresql+asyncpg://u:secret@h/d", "write postgresql+psycopg://"),
        ("postgresq://u:secret@h/d", "did you mean postgresql://"),
        ("sqllite:///x.db", "did you mean sqlite://"),
        ("mysql://u:secret@h/d", "'mysql' is not supported; write for example sqlite:///"),
        ("igkd_hpo.db", "'igkd_hpo.db' is not a URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite://folder/x.db", "three slashes"),
        ("sqlite:///file:x.db?uri=true", "name the file plainly"),
        ("sqlite:///why?1/x.db", "'?' as %3F"),
        ("sqlite:///x.db?mode=ro", "only timeout="),
        ("sqlite:///x.db?timeout=soon", "only timeout="),
        ("sqlite:///x.db?timeout=1&timeout=2", "only timeout="),
        ("sqlite:///x%00.db", "the character 0"),
        ("sqlite:///caf\udce9.db", "not UTF-8"),
        ("postgresql://u:se@cret@h/d", "'@' as %40"),
        ("postgresql://u:secret@h:port/d", "cannot be read"),
    ],
)
def test_unusable_urls(url: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        check_url(url)
    assert expected in str(error.value)
    assert "cret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_postgresql_means_psycopg() -> None:
    for url in ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"):
        assert check_url(url).drivername == "postgresql+psycopg"


def test_passwords_are_never_shown() -> None:
    assert mask("postgresql://ada:secret@h/d?sslmode=require") == "postgresql://ada:***@h/d?sslmode=require"
    assert "secret" not in mask("postgresql://h/d?password=secret")
    assert "secret" not in mask("post gresql://ada:secret@h:port/d")


def test_any_character_may_be_in_a_password(postgresql_url: str, postgresql_server: str) -> None:
    password = "a%b{c}d@e/f:g h'i%7B"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS odd")
        connection.execute("CREATE ROLE odd SUPERUSER LOGIN PASSWORD 'unused: this server trusts its socket'")
    url = make_url(postgresql_url).set(username="odd", password=password).render_as_string(hide_password=False)
    storage = open_storage(url, create=True)
    assert str(storage.engine.url.password) == password
    assert study_names(storage) == []
    storage.engine.dispose()


def test_odd_characters_in_a_sqlite_path(tmp_path: Path) -> None:
    path = tmp_path / "50% {odd} name, why? #1 a%20b Blüten" / "a b.db"
    storage = open_storage(sqlite_url(path), create=True)
    optuna.create_study(study_name="one", storage=storage)
    storage.engine.dispose()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("one",)]


def test_a_database_is_only_made_on_demand(sqlite_url: str, postgresql_url: str) -> None:
    for url in (sqlite_url, postgresql_url):
        with pytest.raises(UsageError, match="igkd-hpo launch"):
            open_storage(url, create=False)
    path = Path(make_url(sqlite_url).database or "")
    assert not path.parent.exists()
    open_storage(sqlite_url, create=True).engine.dispose()
    open_storage(sqlite_url, create=False).engine.dispose()


def test_a_database_that_optuna_made_alone_gets_our_table_too(database_url: str) -> None:
    url = database_url
    if url.startswith("sqlite"):
        Path(make_url(url).database or "").parent.mkdir()
    theirs = optuna.create_study(study_name="theirs", storage=url, direction="minimize")
    with pytest.raises(UsageError, match="holds no studies; igkd-hpo launch makes one"):
        open_storage(url, create=False)
    storage = open_storage(url, create=True)
    assert study_names(storage) == []
    with pytest.raises(UsageError, match="'theirs'"):
        SearchStudy(storage, "theirs")
    storage.engine.dispose()
    theirs._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_files_and_folders_that_cannot_be_a_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        open_storage(f"sqlite:///{tmp_path}", create=True)
    wrong = tmp_path / "wrong.db"
    wrong.write_text("this is no database, but it is long enough to look like one " * 20)
    with pytest.raises(StorageError, match="file is not a database") as error:
        open_storage(f"sqlite:///{wrong}", create=True)
    assert str(wrong) in str(error.value)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make the folder"):
        open_storage(f"sqlite:///{tmp_path / 'file' / 'x.db'}", create=True)


@pytest.mark.parametrize(("version", "expected"), [("v2.4.0.a", "optuna storage upgrade"), ("v9", "update Optuna")])
def test_tables_of_another_optuna_are_refused_with_what_to_run(sqlite_url: str, version: str, expected: str) -> None:
    open_storage(sqlite_url, create=True).engine.dispose()
    with sqlite3.connect(make_url(sqlite_url).database or "") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])
    with pytest.raises(StorageError, match=expected) as error:
        open_storage(sqlite_url, create=False)
    assert "$" not in str(error.value)
    assert sqlite_url in str(error.value)


def test_the_newest_revision_is_the_one_that_alembic_finds(sqlite_url: str) -> None:
    open_storage(sqlite_url, create=True).engine.dispose()
    assert newest_revision() == RDBStorage(sqlite_url).get_head_version()


def test_to_read_a_study_takes_nothing_that_is_slow_to_start(study_file: Study, sqlite_url: str) -> None:
    create_or_open(open_storage(sqlite_url, create=True), study_file, n_trials=None, pins=None)
    program = (
        "import sys\n"
        "from optuna.storages._rdb.models import TrialModel\n"
        "from igkd_hpo.search.status import status\n"
        "from igkd_hpo.search.storage import open_storage\n"
        "(study,) = status(open_storage(sys.argv[1], create=False))\n"
        "assert study.unusable is None, study\n"
        "assert not {'alembic', 'sqlalchemy.dialects.postgresql'} & sys.modules.keys()\n"
        "assert not TrialModel.__mapper__.configured\n"
    )
    subprocess.run([sys.executable, "-c", program, sqlite_url], check=True)


def test_migrations_that_do_not_tell_are_left_to_optuna(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igkd_hpo.search.optuna_internals.newest_revision", lambda: None)
    open_storage(sqlite_url, create=True).engine.dispose()
    assert study_names(open_storage(sqlite_url, create=False)) == []


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, for whom no folder is read-only.
    monkeypatch.setattr("igkd_hpo.search.storage.os.access", lambda *_: False)
    with pytest.raises(UsageError, match="--storage"):
        open_storage(f"sqlite:///{tmp_path / 'x.db'}", create=True)


@pytest.mark.parametrize("create", [False, True])
def test_a_place_that_cannot_be_looked_at_is_named(tmp_path: Path, create: bool) -> None:
    with pytest.raises(StorageError, match="too long; name another"):
        open_storage(f"sqlite:///{tmp_path / ('x' * 300)}", create=create)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(StorageError, match="Permission denied; name another"):
        as_anybody(lambda: open_storage(f"sqlite:///{closed / 'x.db'}", create=create))
    closed.chmod(0o700)


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    with pytest.raises(StorageError) as error:
        open_storage("postgresql://ada:secret@127.0.0.1:1/d", create=True)
    message = str(error.value)
    assert "postgresql+psycopg://ada:***@127.0.0.1:1/d" in message
    assert "check --storage" in message
    assert "\n" not in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("change", "remedy"),
    [({"database": "gone"}, "`createdb gone`"), ({"username": "nobody"}, "createuser")],
)
def test_what_a_server_lacks_has_its_own_remedy(postgresql_url: str, change: dict[str, str], remedy: str) -> None:
    url = make_url(postgresql_url).set(**change).render_as_string(hide_password=False)  # type: ignore[arg-type]
    with pytest.raises(StorageError) as error:
        open_storage(url, create=True)
    assert remedy in str(error.value)


def test_a_wrong_password_is_not_a_server_that_is_down() -> None:
    refused = psycopg.OperationalError('connection failed: FATAL:  password authentication failed for user "ada"')
    with pytest.raises(StorageError) as error, storage_errors(make_url("postgresql+psycopg://ada:x@h/d")):
        raise OperationalError("", None, refused)
    assert "check user and password" in str(error.value)


def test_work_goes_on_when_the_server_is_back(
    postgresql_url: str, postgresql_server: str, make_postgresql_study: Callable[[], SearchStudy], worker: Worker
) -> None:
    study = make_postgresql_study()
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    name = make_url(postgresql_url).database
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for call in (
            lambda: leases.claim(worker),
            lambda: leases.report(claim, epoch=1, accuracy=0.5),
            lambda: leases.complete(claim, 0.5, {}),
            lambda: leases.heartbeat(claim, last_epoch=0),
            study.counts,
            leases.held,
        ):
            with pytest.raises(StorageError):
                call()
        server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    assert leases.report(claim, epoch=1, accuracy=0.5)
    assert leases.complete(claim, 0.5, {})
    with study.storage.reading() as connection:
        used = connection.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        ).scalar_one()
    assert used <= 2


def test_a_holder_of_the_lock_that_was_cut_off_writes_nothing(
    postgresql_server: str, make_postgresql_study: Callable[[], SearchStudy], worker: Worker
) -> None:
    study = make_postgresql_study()
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    with pytest.raises(StorageError), study.transaction() as connection:  # noqa: PT012 - the cut comes in between
        study.storage.set_trial_user_attr(claim.trial_id, "device", "before the cut")
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with psycopg.connect(postgresql_server, autocommit=True) as server:
            server.execute("SELECT pg_terminate_backend(%s)", [backend])
        study.storage.set_trial_user_attr(claim.trial_id, "device", "after the cut")
    assert "device" not in study.trials()[0].user_attrs


def test_a_trial_that_was_rolled_back_is_not_remembered(
    storage: SharedStorage, make_study: Callable[[], SearchStudy]
) -> None:
    study = make_study()
    with pytest.raises(ZeroDivisionError), study.transaction():  # noqa: PT012 - what comes before is undone
        storage.create_new_trial(study.study_id)
        raise ZeroDivisionError
    assert study.trials() == []
    trial_id = storage.create_new_trial(study.study_id)
    assert [trial._trial_id for trial in study.trials()] == [trial_id]


def test_another_tool_that_makes_the_same_tables_does_not_spoil_ours(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stock Optuna tool opens the empty database in the moment in which Optuna makes its tables for us.
    original = module._open_backend
    calls = []

    def open_after_another(url: URL, *, create: bool) -> RDBStorage:
        calls.append(create)
        if len(calls) == 1:
            other = RDBStorage(url.render_as_string(hide_password=False))
            other.remove_session()
            other.engine.dispose()
            raise IntegrityError("INSERT INTO alembic_version", {}, Exception("UNIQUE constraint failed"))
        return original(url, create=create)

    monkeypatch.setattr(module, "_open_backend", open_after_another)
    opened = open_storage(database_url, create=True)
    assert study_names(opened) == []
    assert len(calls) == 2
    opened.remove_session()
    opened.engine.dispose()


def test_a_url_that_is_not_utf8_can_be_shown() -> None:
    assert mask("sqlite:///caf\udce9.db").encode()


@pytest.mark.parametrize(
    "url",
    ["ann:s3cret@host", "postgresql:/ann:s3cret@host/db", "postgresql://ann:a@s3cret@host/db", "mysql://a:s3cret@h/db"],
)
def test_a_url_that_is_refused_does_not_show_its_password(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_url(url)
    assert "s3cret" not in str(raised.value) + mask(url)


def test_a_database_without_an_encoding_holds_text(postgresql_server: str) -> None:
    name = "plain"
    make = f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(make)
    storage = open_storage(postgresql_server.replace("/postgres?", f"/{name}?"), create=True)
    optuna.create_study(study_name="Blüten", storage=storage).set_user_attr("note", "größer")
    assert optuna.get_all_study_names(storage) == ["Blüten"]
    assert optuna.load_study(study_name="Blüten", storage=storage).user_attrs == {"note": "größer"}
    storage.engine.dispose()


def test_every_connection_to_a_server_follows_the_url(postgresql_url: str) -> None:
    asked: list[dict[str, object]] = []

    def note(*arguments: Any) -> None:
        asked.append(dict(arguments[-1]))

    event.listen(Engine, "do_connect", note)
    try:
        open_storage(f"{postgresql_url}&connect_timeout=60", create=True).engine.dispose()
    finally:
        event.remove(Engine, "do_connect", note)
    assert len(asked) > 2, "to look for tables, to lock, and to make them"
    assert {str(options["connect_timeout"]) for options in asked} == {"60"}
    assert all(options["keepalives_count"] == 3 for options in asked)


def test_a_lock_that_is_not_free_in_time_is_an_error_of_the_database(
    make_postgresql_study: Callable[[], SearchStudy], postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_postgresql_study()
    other = open_study(open_storage(postgresql_url, create=False), study.name)
    with study.transaction():
        monkeypatch.setattr(lock, "_LIMIT", "50ms")
        with pytest.raises(StorageError, match="lock timeout"), other.transaction():
            pass
    with other.transaction():
        pass
    other.storage.engine.dispose()
