"""Studies are deleted and renamed as a whole, in every database, and others stay as they are."""

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from igkd_hpo.errors import UsageError
from igkd_hpo.search.confirmation_study import create_linked, open_confirmation
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.removal import delete_study, rename_study, stored_study, with_linked
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study, study_names
from tests.search.conftest import PINS

Make = Callable[..., SearchStudy]


def run(study: SearchStudy, worker: Worker, accuracy: float = 0.5) -> int:
    """Train a trial to its end, with a picture."""
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    assert leases.start(claim, this_process(), "cpu")
    leases.report(claim, epoch=1, accuracy=accuracy)
    study.storage.set_trial_system_attr(claim.trial_id, f"artifacts:{study.name}-picture", "{}")
    assert leases.complete(claim, accuracy, {})
    return claim.number


def rows(storage: SharedStorage, study_id: int) -> int:
    """How many rows of all tables belong to a study or its trials."""
    tables = {
        "study_id": ("studies", "study_directions", "study_user_attributes", "trials", "igkd_hpo_leases"),
        "trial_id": ("trial_values", "trial_intermediate_values", "trial_params", "trial_user_attributes"),
    }
    total = 0
    with storage.reading() as connection:
        for table in tables["study_id"]:
            query = f"SELECT COUNT(*) FROM {table} WHERE study_id = :id"
            total += connection.execute(text(query), {"id": study_id}).scalar_one()
        for table in tables["trial_id"]:  # no trial is left for them to belong to
            query = f"SELECT COUNT(*) FROM {table} WHERE trial_id NOT IN (SELECT trial_id FROM trials)"
            total += connection.execute(text(query)).scalar_one()
    return total


def test_a_deleted_study_leaves_nothing_and_takes_nothing_of_others(make_study: Make, worker: Worker) -> None:
    other, study = make_study(name="other"), make_study()
    run(other, worker, 0.7)
    run(study, worker)
    found = stored_study(study.storage, "digits")
    assert (found.trials, found.folder, found.artifacts) == (1, "digits", frozenset({"digits-picture"}))
    delete_study(study.storage, found)
    assert rows(study.storage, study.study_id) == 0
    assert study_names(study.storage) == ["other"]
    assert [trial.value for trial in open_study(study.storage, "other").trials()] == [0.7]
    again = make_study()
    assert again.trials() == []
    assert run(again, worker) == 0


def test_a_confirmation_and_a_ladder_go_with_their_study_and_alone(make_study: Make) -> None:
    study = make_study()
    create_linked(study.storage, study.config, "confirm", pins=PINS)
    create_linked(study.storage, study.config, "ladder", pins=PINS)
    found = {one.name: one.called for one in with_linked(study.storage, "digits")}
    assert found == {"digits-confirm": "confirmation", "digits-ladder": "ladder", "digits": "study"}
    assert list(found)[-1] == "digits"
    delete_study(study.storage, stored_study(study.storage, "digits-ladder"))
    assert [one.name for one in with_linked(study.storage, "digits-confirm")] == ["digits-confirm"]
    rename_study(study.storage, "digits", "old")
    assert [one.name for one in with_linked(study.storage, "old")] == ["digits-confirm", "old"]
    make_study()  # another one of the old name
    assert [one.name for one in with_linked(study.storage, "digits")] == ["digits"]


def test_what_runs_is_neither_deleted_nor_renamed(
    make_study: Make, worker: Worker, elsewhere: Callable[..., Worker]
) -> None:
    study, leases = make_study(), None
    for one in (worker, elsewhere("far")):
        leases = Leases(study)
        claim = leases.claim(one)
        assert isinstance(claim, Claim)
        found = stored_study(study.storage, "digits")
        with pytest.raises(UsageError, match=r"digits runs on .*stop digits --now"):
            delete_study(study.storage, found)
        with pytest.raises(UsageError, match=r"digits runs on .*stop digits --now"):
            rename_study(study.storage, "digits", "old")
        assert leases.release(claim, "over", counted=False, epochs_gained=False)
    assert study_names(study.storage) == ["digits"]
    delete_study(study.storage, found)


def test_a_renamed_study_goes_on_with_its_trials_folder_and_confirmation(make_study: Make, worker: Worker) -> None:
    study = make_study()
    first = run(study, worker)
    create_linked(study.storage, study.config, "confirm", pins=PINS)
    dashboard = open_storage(study.storage.url.render_as_string(hide_password=False), create=False)
    assert dashboard.get_study_name_from_id(study.study_id) == "digits"
    rename_study(study.storage, "digits", "old")
    assert dashboard.get_study_name_from_id(study.study_id) == "old", "it was cached before"
    dashboard.engine.dispose()
    renamed = open_study(study.storage, "old")
    assert (renamed.study_id, renamed.folder, renamed.config.name) == (study.study_id, "digits", "old")
    linked = open_confirmation(study.storage, "old")
    assert linked is not None
    assert linked.confirms == "old"
    assert [trial.state for trial in renamed.trials()] == [TrialState.COMPLETE]
    assert run(renamed, worker) == first + 1
    assert create_or_open(study.storage, study.config, n_trials=None, pins=PINS).folder == "digits-2"


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 101, "a\n"])
def test_a_name_that_cannot_be_one_is_refused(make_study: Make, name: str) -> None:
    study = make_study()
    with pytest.raises(UsageError, match="cannot be the name"):
        rename_study(study.storage, "digits", name)


def test_what_cannot_be_renamed_or_deleted_says_why(make_study: Make) -> None:
    study = make_study()
    linked = create_linked(study.storage, study.config, "confirm", pins=PINS)
    optuna.create_study(storage=study.storage, study_name="foreign")
    with pytest.raises(UsageError, match="confirmation of digits"):
        rename_study(study.storage, linked.name, "old")
    for taken in ("digits", "foreign"):
        with pytest.raises(UsageError, match="already"):
            rename_study(study.storage, "digits", taken)
    for call in (stored_study, lambda storage, name: rename_study(storage, name, "old")):
        with pytest.raises(UsageError, match="not made by igkd-hpo"):
            call(study.storage, "foreign")
        with pytest.raises(UsageError, match="did you mean digits"):
            call(study.storage, "digit")
    found = stored_study(study.storage, "digits")
    delete_study(study.storage, found)
    with pytest.raises(UsageError, match="no study 'digits'"):
        delete_study(study.storage, found)


def test_a_study_that_cannot_be_read_can_be_deleted(make_study: Make) -> None:
    study = make_study()
    study.storage.set_study_user_attr(study.study_id, "study_file", "{}")
    with pytest.raises(UsageError, match="igkd-hpo delete"):
        open_study(study.storage, "digits")
    delete_study(study.storage, stored_study(study.storage, "digits"))
    assert study_names(study.storage) == []
