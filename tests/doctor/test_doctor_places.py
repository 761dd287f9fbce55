"""Faults planted in the database, the devices and the study file; a real PostgreSQL server refuses what it is to."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.devices import check_devices
from igkd_hpo.doctor.doctor import examine
from igkd_hpo.doctor.storage import check_file_system, check_latency, check_storage, check_version
from igkd_hpo.doctor.study_file import check_study_file
from igkd_hpo.errors import StudyFileError
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open

from .conftest import Found, Patient


@pytest.fixture
def role(postgresql_server: str) -> Iterator[str]:
    """A role that may log in and nothing more."""
    name = f"role_{uuid4().hex}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        yield name
        for (database,) in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test_%'").fetchall():
            with psycopg.connect(postgresql_server, dbname=database, autocommit=True) as inside:
                inside.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def run_sql(url: str, *statements: str) -> None:
    """Run statements as the server's owner."""
    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def as_role(url: str, role: str) -> str:
    return make_url(url).set(username=role).render_as_string(hide_password=False)


def found_in(patient: Patient, url: str, *, workers: int = 1, pins: AssetPins | None = None) -> Found:
    return Found(check_storage(patient.study(), pins, url, workers=workers))


def test_nothing_is_found_in_an_empty_database_and_in_one_with_the_study(patient: Patient, database_url: str) -> None:
    found = found_in(patient, database_url, workers=4)
    assert found.faults | found.warnings == set()
    assert found["storage: study"].found == "small will be made"
    if database_url.startswith("sqlite"):
        assert not Path(make_url(database_url).database or "").parent.exists()
    else:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)

    storage = open_storage(database_url, create=True)
    create_or_open(storage, patient.study(), n_trials=None, pins=None)
    storage.remove_session()
    storage.engine.dispose()
    found = found_in(patient, database_url, workers=4)
    assert found.faults | found.warnings == set()
    assert found["storage: study"].found == "small, 0 of 10 trials finished"


def test_a_changed_file_and_other_images_are_faults(patient: Patient, sqlite_url: str) -> None:
    pins = AssetPins(dataset_sha256="a" * 64, teacher_sha256="b" * 64)
    storage = open_storage(sqlite_url, create=True)
    create_or_open(storage, patient.study(), n_trials=None, pins=pins)
    storage.remove_session()
    storage.engine.dispose()
    assert found_in(patient, sqlite_url, pins=pins).faults == set()

    other = AssetPins(dataset_sha256="c" * 64, teacher_sha256="b" * 64)
    found = found_in(patient, sqlite_url, pins=other)
    assert found.faults == {"storage: study"}
    assert "images here" in found["storage: study"].found

    changed = Found(check_storage(patient.study(training={"epochs": 11}), pins, sqlite_url, workers=1))
    assert changed.faults == {"storage: study"}
    assert "--new-version" in changed["storage: study"].found


def test_a_server_that_is_away_is_a_fault(patient: Patient) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else answers there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = found_in(patient, f"postgresql+psycopg://me:secret@127.0.0.1:{port}/studies")
    assert found.faults == {"storage: reachable"}
    assert "secret" not in str(found.checks)
    assert found["storage: rights"].verdict is CheckVerdict.NOT_CHECKED


@pytest.mark.parametrize("url", ["mysql://host/studies", "sqlite://", "postgres://host/studies"])
def test_a_wrong_url_is_a_fault(patient: Patient, url: str) -> None:
    assert found_in(patient, url).faults == {"storage: reachable"}


def test_a_file_that_is_no_database_is_a_fault(patient: Patient) -> None:
    (patient.folder / "notes.db").write_text("these are my notes, and no database at all\n" * 50)
    found = found_in(patient, f"sqlite:///{patient.folder / 'notes.db'}")
    assert found.faults == {"storage: reachable"}


def test_a_role_that_cannot_make_tables_is_a_fault(patient: Patient, postgresql_url: str, role: str) -> None:
    run_sql(postgresql_url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    found = found_in(patient, as_role(postgresql_url, role))
    assert found.faults == {"storage: rights"}
    assert f"TO {role}" in found["storage: rights"].advice

    run_sql(postgresql_url, f"GRANT CREATE, USAGE ON SCHEMA public TO {role}")
    assert found_in(patient, as_role(postgresql_url, role)).faults == set()


def test_a_role_that_cannot_write_tables_is_a_fault(patient: Patient, postgresql_url: str, role: str) -> None:
    storage = open_storage(postgresql_url, create=True)
    storage.remove_session()
    storage.engine.dispose()
    run_sql(postgresql_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    found = found_in(patient, as_role(postgresql_url, role))
    assert found.faults == {"storage: rights"}  # the sequences that number the rows are still closed
    assert "seq (USAGE)" in found["storage: rights"].found

    run_sql(postgresql_url, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    assert found_in(patient, as_role(postgresql_url, role)).faults == set()

    run_sql(postgresql_url, f"REVOKE DELETE ON igkd_hpo_leases FROM {role}")
    found = found_in(patient, as_role(postgresql_url, role))
    assert "igkd_hpo_leases (DELETE)" in found["storage: rights"].found


def test_a_server_that_can_only_be_read_is_a_fault(patient: Patient, postgresql_url: str, role: str) -> None:
    run_sql(
        postgresql_url,
        f"GRANT CREATE, USAGE ON SCHEMA public TO {role}",
        f"ALTER ROLE {role} SET default_transaction_read_only = on",
    )
    found = found_in(patient, as_role(postgresql_url, role))
    assert found.faults == {"storage: rights"}
    assert "only read" in found["storage: rights"].found


def test_too_few_connections_for_the_workers_are_a_fault(patient: Patient, postgresql_url: str, role: str) -> None:
    run_sql(postgresql_url, f"GRANT CREATE, USAGE ON SCHEMA public TO {role}", f"ALTER ROLE {role} CONNECTION LIMIT 6")
    assert found_in(patient, as_role(postgresql_url, role), workers=2).faults == set()
    found = found_in(patient, as_role(postgresql_url, role), workers=3)
    assert found.faults == {"storage: connections"}
    assert "3 workers need 8" in found["storage: connections"].found
    assert "start 2 workers" in found["storage: connections"].advice

    assert found_in(patient, postgresql_url, workers=1000).faults == {"storage: connections"}


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0.01, CheckVerdict.OK), (0.2, CheckVerdict.WARNING), (2.0, CheckVerdict.FAULT)], ids=str
)
def test_a_slow_database(seconds: float, verdict: CheckVerdict) -> None:
    assert check_latency(seconds).verdict is verdict


def test_network_file_systems_and_old_servers() -> None:
    assert check_file_system("nfs4").verdict is CheckVerdict.FAULT
    assert check_file_system("ext4").verdict is CheckVerdict.OK
    assert check_version(120_022, "12.22").verdict is CheckVerdict.WARNING
    assert check_version(130_000, "13.0").verdict is CheckVerdict.OK


def test_a_device_that_is_not_there_is_a_fault(patient: Patient) -> None:
    found = patient.examine(device="cuda:99")
    assert found.faults == {"devices: device"}
    assert found["devices: memory"].verdict is CheckVerdict.NOT_CHECKED
    assert found["teacher: accuracy"].verdict is CheckVerdict.OK  # on the CPU


def test_a_precision_that_the_device_lacks_is_a_fault(patient: Patient) -> None:
    found = Found(
        check_devices(
            patient.study(training={"precision": "float16"}), None, patient.settings, workers=1, device="cpu"
        )[1]
    )
    assert found.faults == {"devices: precision"}


def test_more_workers_than_memory_and_cores(patient: Patient) -> None:
    found = patient.examine(workers=100_000)
    assert found.faults == {"devices: memory"}
    assert found.warnings == {"devices: cores"}
    assert found["devices: memory"].advice.startswith("start ")


def test_a_wide_student_needs_more_memory(patient: Patient) -> None:
    narrow = patient.examine(workers=500)["devices: memory"].found
    wide = patient.examine(workers=500, hyperparameters={"width": 4.0, "layers_removed": 0, "batch_size": 153})
    gibibytes = [float(text.split(" GiB")[0].split("about ")[1]) for text in (narrow, wide["devices: memory"].found)]
    assert gibibytes[1] > 2 * gibibytes[0]


def test_a_study_file_with_faults_leaves_the_surroundings_to_check(patient: Patient) -> None:
    error = StudyFileError("study.yaml: 2 faults\n  one\n  two")
    found = Found(examine(error, patient.settings, workers=1, device="cpu", progress=None))  # type: ignore[arg-type]
    assert found.faults == {"study: file"}
    assert "two" in found["study: file"].found
    assert found["data: all"].found == "the study file has faults"
    assert found["storage: rights"].verdict is found["devices: device"].verdict is CheckVerdict.OK
    shutil.rmtree(patient.folder / "storage", ignore_errors=True)


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"hyperparameters": {"temperature": {"type": "float", "low": 1, "high": 8}, "alpha": 0.0}}, "search space"),
        (
            {
                "hyperparameters": {
                    "overlay_strength": {"type": "float", "low": 0.1, "high": 0.9},
                    "overlay_probability": 0.0,
                }
            },
            "search space",
        ),
        ({"hyperparameters": {"learning_rate": {"type": "float", "low": 0.1, "high": 0.1}}}, "search space"),
        (
            {"hyperparameters": {"flip": "alternating"}, "augmentation": {"crop_padding": 0, "horizontal_flip": False}},
            "search space",
        ),
        (
            {"hyperparameters": {"alignment": "mean_map", "alpha": 0.0, "overlay_probability": 0.0}},
            "search space",
        ),
        ({"training": {"epochs": 3}, "pruner": {"name": "percentile"}}, "pruner"),
        ({"training": {"epochs": 12}, "pruner": {"name": "successive_halving"}, "n_trials": 43}, "pruner"),
        ({"n_trials": 4}, "trials"),
        ({"n_trials": 4, "training": {"epochs": 12}, "pruner": {"name": "successive_halving"}}, "trials"),
    ],
)
def test_what_a_valid_study_file_cannot_do_is_a_warning(
    patient: Patient, sections: dict[str, object], name: str
) -> None:
    found = Found(check_study_file(patient.study(**sections)))
    assert (found.faults, found.warnings) == (set(), {f"study: {name}"})
    assert found[f"study: {name}"].advice


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"epochs": 12}, "n_trials": 44},
        {"training": {"epochs": 4}, "n_trials": 24},
        {"training": {"epochs": 12}, "n_trials": 24, "pruner": {"name": "successive_halving", "grace_period": 4}},
    ],
)
def test_halving_is_doubted_only_where_few_trials_are_stopped_early(
    patient: Patient, sections: dict[str, object]
) -> None:
    assert (
        Found(check_study_file(patient.study(**{"pruner": {"name": "successive_halving"}} | sections))).warnings
        == set()
    )


def test_nothing_is_found_in_the_built_in_study_files() -> None:
    for path in builtin_studies().values():
        found = Found(check_study_file(read_study(path)))
        assert found.faults | found.warnings == set(), path
