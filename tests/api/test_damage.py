"""Whatever stands in a database's attributes, every reading command ends well or with an error of ours.

Other studies stay listed, and workers go on with them.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from igkd_hpo.api.source import settings_here
from igkd_hpo.api.study import Study
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.reading import parse_study
from igkd_hpo.confirmation.explanations import ATTRIBUTE
from igkd_hpo.confirmation.plan import best_candidates, check_same_search
from igkd_hpo.dashboard.graphs import study_graphs
from igkd_hpo.dashboard.summary import live_summary
from igkd_hpo.errors import IgkdError
from igkd_hpo.report.answer import report_answer
from igkd_hpo.report.figures import slices_figure
from igkd_hpo.report.provenance import provenance_facts
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.status import status
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, latest_study
from igkd_hpo.settings import Settings, sqlite_url
from igkd_hpo.terminal.status_board import status_board
from tests.confirm.test_confirmation import confirm, test, train
from tests.confirm.test_explaining import explained
from tests.fixtures.studies import COST, EXECUTION, STUDY

PINS = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
PLACES = [  # table, column that holds a value
    ("study_user_attributes", "value_json"),
    ("study_system_attributes", "value_json"),
    ("trial_user_attributes", "value_json"),
    ("trial_system_attributes", "value_json"),
    ("trial_params", "param_value"),
    ("trial_params", "distribution_json"),
    ("trial_values", "value"),
    ("trial_intermediate_values", "intermediate_value"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**12) | st.floats() | st.text(max_size=9) | st.just("NaN"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
WRITTEN = st.one_of(JSON.map(json.dumps), st.sampled_from(["", "{", "word", "[" * 5000, "NaN", "1e999"]), st.floats())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database: a study in the middle of its search, its confirmation, and another study that is open."""
    path = tmp_path_factory.mktemp("sound") / "igkd_hpo.db"
    storage = open_storage(sqlite_url(path), create=True)
    file = parse_study(STUDY, source="test")
    create_or_open(storage, file.model_copy(update={"name": "other"}), n_trials=None, pins=PINS)
    study = create_or_open(storage, file, n_trials=9, pins=PINS)
    leases = Leases(study)
    for n, end in enumerate(("complete", "complete", "complete", "complete", "prune", "fail", "release", "leave")):
        claim = leases.claim(Worker(name="worker-0", process=this_process()))
        assert isinstance(claim, Claim)
        leases.report(claim, epoch=1, accuracy=0.5 + n / 100)
        if end == "complete":
            leases.annotate(claim, {"execution": EXECUTION, "device": "cpu", **COST}, excess={"parameters": -0.5})
            leases.complete(claim, 0.6 + n / 100, {})
        elif end == "prune":
            leases.prune(claim, "below the bar", {})
        elif end == "fail":
            leases.fail(claim, "no reason", {})
        elif end == "release":
            leases.release(claim, "stopped", counted=True, epochs_gained=False)
    study.optuna_study.enqueue_trial({"alpha": 0.5})
    study.storage.set_study_system_attr(study.study_id, "note", "a note")
    linked = confirm(study, top=1, seeds=2)
    train(linked, {name: 0.9 for arm in linked.read().attributes["arms"] for name in arm["names"]})
    test(linked)
    storage.set_study_user_attr(linked.study_id, ATTRIBUTE, explained().as_json())
    storage.engine.dispose()
    return path


@pytest.fixture(scope="module")
def connected(sound: Path) -> Iterator[SharedStorage]:
    """The database, opened once: that takes as long as reading it thrice."""
    storage = open_storage(sqlite_url(sound), create=False)
    yield storage
    storage.engine.dispose()


@contextmanager
def planted(path: Path, place: tuple[str, str], row: int, written: object) -> Iterator[None]:
    """Write into the row of this number, counted around, or remove it (None); afterwards put it back."""
    table, column = place
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = connection.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid").fetchall()
        whole = rows[row % len(rows)]
        connection.execute(f"DELETE FROM {table} WHERE rowid = ?", whole[:1])
        back = f"INSERT INTO {table} VALUES ({', '.join('?' * len(whole[1:]))})"
        if written is not None:
            connection.execute(back, whole[1:])
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [written, whole[0]])
        try:
            yield
        finally:
            connection.execute(f"DELETE FROM {table} WHERE rowid = ?", whole[:1])
            connection.execute(back, whole[1:])


def read(study: SearchStudy, settings: Settings) -> None:
    """Everything that reads a study, apart from pixels."""
    held = Study(study, settings)
    for call in (
        held.summary,
        lambda: held.trials,
        lambda: held.export("best.yaml"),
        lambda: live_summary(study, study.trials()),
        lambda: study_graphs(study, study.trials(), now=datetime.now(), curves=True),  # noqa: DTZ005 - as Optuna's
        lambda: report_answer(study, held.confirmation),
        lambda: provenance_facts(study, None, None),
        lambda: slices_figure(study, study.trials()),
        lambda: best_candidates(study, 2),
        lambda: check_same_search(study, study),
    ):
        with suppress(IgkdError):
            call()


@example(place=("trial_params", "distribution_json"), row=0, written="[" * 5000)  # which json refuses in its own way
@example(place=("study_user_attributes", "value_json"), row=0, written='"[]"')
@given(place=st.sampled_from(PLACES), row=st.integers(0, 200), written=WRITTEN | st.none())
def test_a_damaged_row_spoils_itself_alone(
    sound: Path, connected: SharedStorage, place: tuple[str, str], row: int, written: object
) -> None:
    with planted(sound, place, row, written):
        storage = SharedStorage(connected._backend, connected.url)
        listed = {study.name: study for study in status(storage)}
        status_board(list(listed.values()), 80)
        assert len(listed) >= 2  # without its fingerprint, a study is another tool's
        usable = [name for name, study in listed.items() if study.unusable is None]
        assert len(usable) >= len(listed) - 1
        failed = sum(study.counts.fail for study in listed.values())
        assert failed <= 2  # one that failed, one that is damaged
        latest_study(storage)
        if "digits" in usable:
            read(SearchStudy(storage, "digits"), settings_here(str(connected.url)))
