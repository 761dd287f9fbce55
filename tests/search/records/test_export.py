"""The exported file: the same study with one value for each range, and where it comes from."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo import __version__
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.reading import parse_study, read_study
from igkd_hpo.config.study import Study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.distillation.recipe import as_written
from igkd_hpo.files import write_text
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.trial.train import note_edits
from tests.fixtures.studies import COST


@pytest.fixture
def searched(study: SearchStudy, run) -> SearchStudy:
    run(0.5, 0.6, 0.70)
    run(0.5, 0.6, 0.75)
    run(0.5, 0.6, 0.80)
    return study


def test_every_range_becomes_the_value_that_trained(searched: SearchStudy, tmp_path: Path) -> None:
    best = best_trial(searched)
    path = tmp_path / "best.yaml"
    exported = exported_study(searched, best)
    write_text(path, to_yaml(exported))
    read = read_study(path)
    assert read == exported
    assert read.name == "digits-best"
    assert not read.is_search
    assert read.hyperparameters.model_dump() == as_written(best.hyperparameters)
    assert (read.training.seed, read.n_trials, read.controls, read.pruner.name) == (42, 5, (), "none")
    unchanged = ("dataset", "teacher", "student", "attribution", "augmentation")
    assert [getattr(read, key) for key in unchanged] == [getattr(searched.config, key) for key in unchanged]
    assert read.training.epochs == searched.config.training.epochs


def test_an_exported_file_that_was_edited_is_noticed(searched: SearchStudy) -> None:
    exported = exported_study(searched, best_trial(searched))
    assert note_edits(exported) == []
    hotter = exported.hyperparameters.model_copy(update={"temperature": 9.5})
    (note,) = note_edits(exported.model_copy(update={"hyperparameters": hotter}))
    assert "changed after it was exported" in note


def test_where_it_comes_from_is_kept(searched: SearchStudy) -> None:
    exported = exported_study(searched, best_trial(searched))
    provenance = exported.provenance
    assert provenance is not None
    assert (provenance.study, provenance.trial, provenance.validation_accuracy) == ("digits", 2, 0.80)
    assert provenance.execution is not None
    assert provenance.execution.threads == 1
    extra = dict(provenance.model_extra or {})
    assert extra.pop("exported").endswith("+00:00")
    assert extra.pop("exported_fingerprint") == fingerprint(exported)
    assert extra == {
        "control": None,
        **COST,
        "confirmed": False,
        "completed_trials": 3,
        "controls": {"student": 0.70, "kd": 0.75},
        "fingerprint": fingerprint(searched.config),
        "dataset_sha256": "d" * 64,
        "teacher_sha256": "e" * 64,
        "igkd_hpo": __version__,
    }


def test_a_control_comes_out_as_it_trained(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.90)  # student: alpha 0, although temperature and others are searched
    exported = exported_study(study, best_trial(study))
    assert exported.hyperparameters.alpha == 0
    assert exported.hyperparameters.overlay_probability == 0
    assert exported.provenance is not None
    assert exported.provenance.model_extra is not None
    assert exported.provenance.model_extra["control"] == "student"


def test_it_launches_as_a_study_of_five_seeds(searched: SearchStudy, storage: SharedStorage) -> None:
    exported = exported_study(searched, best_trial(searched))
    again = create_or_open(storage, parse_study(to_yaml(exported), source="best.yaml"), n_trials=None, pins=None)
    assert (again.name, again.read().n_trials, again.trials()) == ("digits-best", 5, [])


def test_an_export_of_an_export_keeps_its_own_origin(searched: SearchStudy, storage: SharedStorage, run) -> None:
    exported = exported_study(searched, best_trial(searched))
    assert exported_study(searched, best_trial(searched)).name == "digits-best"
    longest = searched.config.model_copy(update={"name": "n" * 100})
    named = create_or_open(storage, longest, n_trials=None, pins=None)
    assert len(exported_study(named, best_trial(searched)).name) <= 100
    assert exported.provenance is not None


@given(
    temperature=st.floats(min_value=0, max_value=100, exclude_min=True),
    alpha=st.floats(min_value=0, max_value=1),
    learning_rate=st.floats(min_value=1e-300, max_value=100),
    accuracy=st.floats(min_value=0, max_value=1),
)
def test_numbers_survive_to_the_last_bit(
    study_file: Study, temperature: float, alpha: float, learning_rate: float, accuracy: float
) -> None:
    given_values = {"temperature": temperature, "alpha": alpha, "learning_rate": learning_rate, "batch_size": 64}
    values = {**study_file.hyperparameters.model_dump(), **given_values, "overlay_strength": 0.1}
    provenance = {"study": "digits", "trial": 3, "validation_accuracy": accuracy, "note": temperature}
    study = Study.model_validate({**dict(study_file), "hyperparameters": values, "provenance": provenance})
    read = parse_study(to_yaml(study), source="best.yaml")
    assert {name: repr(value) for name, value in read.hyperparameters} == {
        name: repr(value) for name, value in study.hyperparameters
    }
    assert read == study


def test_a_trial_without_recorded_execution_is_exported_too(searched: SearchStudy) -> None:
    best = dataclasses.replace(best_trial(searched), execution=None)
    read = parse_study(to_yaml(exported_study(searched, best)), source="best.yaml")
    assert read.provenance is not None
    assert read.provenance.execution is None
