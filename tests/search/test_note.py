"""The note that a study's page in the dashboard opens with."""

from pathlib import Path

from optuna_dashboard import get_note

from igkd_hpo.config.reading import parse_study
from igkd_hpo.search.note import save_study_note, study_note
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open

SEARCH = """
name: leaves
dataset: {name: folder, root: photos/leaves}
teacher: {checkpoint: teacher.pt}
training: {epochs: 7}
hyperparameters:
  temperature: {type: float, low: 1.0, high: 8.0, step: 0.5}
  alpha: 0.25
  overlay_probability: 0.1
  overlay_strength: 0.5
  learning_rate: {type: float, low: 1.0e-3, high: 1.0, log: true}
  batch_size: {type: categorical, choices: [64, 128]}
  layers_removed: {type: int, low: 2, high: 8}
n_trials: 9
controls: [kd]
"""


def make(tmp_path: Path, text: str, *, n_trials: int | None = None) -> SearchStudy:
    storage = open_storage(f"sqlite:///{tmp_path}/storage.db", create=True)
    return create_or_open(storage, parse_study(text, source="study.yaml"), n_trials=n_trials, pins=None)


def test_the_note_tells_what_is_searched_and_how_to_take_it_home(tmp_path: Path) -> None:
    note = study_note(make(tmp_path, SEARCH, n_trials=30))
    for line in (
        "| temperature | 1 to 8, step 0.5 |",
        "| learning_rate | 0.001 to 1, log scale |",
        "| batch_size | one of 64, 128 |",
        "| layers_removed | 2 to 8 |",
        "- teacher: mobilenet_v2, `teacher.pt`",
        "    igkd-hpo export leaves -o best.yaml",
    ):
        assert line in note.splitlines()
    assert "**folder** from `photos/leaves`? A trial has 7 epochs" in note
    assert "Fixed: alpha 0.25, overlay_probability 0.1" in note


def test_the_note_holds_nothing_that_a_later_launch_changes(tmp_path: Path) -> None:
    study = make(tmp_path, SEARCH, n_trials=30)
    before = study_note(study)
    create_or_open(study.storage, study.config, n_trials=31, pins=None)
    assert study.read().n_trials == 31
    assert study_note(study) == before


def test_a_study_of_seeds_says_so(tmp_path: Path) -> None:
    text = "\n".join(line for line in SEARCH.splitlines() if "type:" not in line)
    text = text.replace("alpha: 0.25", "alpha: 0.25\n  temperature: 4.0\n  learning_rate: 0.1")
    assert "Nothing is searched: each trial is one more seed." in study_note(make(tmp_path, text))


def test_the_dashboard_finds_the_note(tmp_path: Path) -> None:
    study = make(tmp_path, SEARCH.replace("photos/leaves", "photos/" + "of-leaves/" * 400))
    save_study_note(study)
    assert get_note(study.optuna_study) == study_note(study)
    assert study.optuna_study.metric_names == ["validation accuracy"]
