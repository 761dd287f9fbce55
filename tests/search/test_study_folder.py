"""A study's folder is the name that it was created with, whatever somebody calls it since."""

import json

import optuna
import pytest

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.study import Study
from igkd_hpo.errors import StudyUnusable
from igkd_hpo.search.confirmation_study import create_linked, open_confirmation, parent_of
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study

PINS = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)


def rename(storage: SharedStorage, old: str, new: str) -> None:
    """As optuna-dashboard does it."""
    optuna.copy_study(from_study_name=old, from_storage=storage, to_storage=storage, to_study_name=new)
    optuna.delete_study(study_name=old, storage=storage)


def create(storage: SharedStorage, study_file: Study, name: str = "digits") -> SearchStudy:
    return create_or_open(storage, study_file.model_copy(update={"name": name}), n_trials=None, pins=PINS)


def test_the_folder_stays_through_renames_and_launches(storage: SharedStorage, study_file: Study) -> None:
    assert create(storage, study_file).folder == "digits"
    rename(storage, "digits", "second")
    assert open_study(storage, "second").folder == "digits"
    assert create(storage, study_file, "second").folder == "digits"  # its file has the new name from here on
    rename(storage, "second", "third")
    assert open_study(storage, "third").folder == "digits"


def test_a_study_of_an_earlier_version_has_the_name_in_its_file(storage: SharedStorage, study_file: Study) -> None:
    study = create(storage, study_file)
    storage.set_study_user_attr(study.study_id, "folder", None)
    rename(storage, "digits", "renamed")
    assert create(storage, study_file, "renamed").folder == "digits"
    assert open_study(storage, "renamed").read().attributes["folder"] == "digits"


def test_a_new_study_of_an_old_name_does_not_write_into_the_renamed_ones_folder(
    storage: SharedStorage, study_file: Study
) -> None:
    create(storage, study_file)
    rename(storage, "digits", "renamed")
    assert create(storage, study_file).folder == "digits-2"
    assert open_study(storage, "renamed").folder == "digits"


@pytest.mark.parametrize("folder", ["../../etc", "/etc", "", ".", "a/b", "a\n", 3])
def test_no_folder_lies_elsewhere(storage: SharedStorage, study_file: Study, folder: object) -> None:
    study = create(storage, study_file)
    storage.set_study_user_attr(study.study_id, "folder", folder)
    with pytest.raises(StudyUnusable, match="folder"):
        SearchStudy(storage, "digits")
    document = json.loads(study_file.model_dump_json()) | {"name": folder}
    storage.set_study_user_attr(study.study_id, "folder", None)
    storage.set_study_user_attr(study.study_id, "study_file", json.dumps(document))
    assert SearchStudy(storage, "digits").folder == "digits"


def test_a_renamed_study_keeps_its_confirmation(storage: SharedStorage, study_file: Study) -> None:
    linked = create_linked(storage, create(storage, study_file).config, "confirm", pins=PINS)
    rename(storage, "digits", "renamed")
    renamed = open_study(storage, "renamed")
    found = open_confirmation(storage, "renamed")
    assert found is not None
    assert (found.study_id, found.confirms) == (linked.study_id, "renamed")
    assert parent_of(found).study_id == renamed.study_id
    assert create_linked(storage, renamed.config, "confirm", pins=PINS).study_id == linked.study_id
    other = create(storage, study_file)  # of the old name
    assert open_confirmation(storage, "digits") is None
    confirms_other = create_linked(storage, other.config, "confirm", pins=PINS)
    assert (confirms_other.name, confirms_other.confirms) == ("digits-2-confirm", "digits")
    found = open_confirmation(storage, "digits")
    assert found is not None
    assert found.study_id == confirms_other.study_id


def test_a_copy_has_a_folder_and_a_confirmation_of_its_own(storage: SharedStorage, study_file: Study) -> None:
    linked = create_linked(storage, create(storage, study_file).config, "confirm", pins=PINS)
    optuna.copy_study(from_study_name="digits", from_storage=storage, to_storage=storage, to_study_name="copy")
    assert open_confirmation(storage, "copy") is None
    assert (open_study(storage, "copy").folder, open_study(storage, "digits").folder) == ("copy", "digits")
    of_copy = create_linked(storage, open_study(storage, "copy").config, "confirm", pins=PINS)
    assert (of_copy.name, of_copy.confirms) == ("copy-confirm", "copy")
    found = open_confirmation(storage, "digits")
    assert found is not None
    assert found.study_id == linked.study_id
    optuna.delete_study(study_name="digits", storage=storage)  # from here on it was a rename
    assert open_study(storage, "copy").folder == "digits"
