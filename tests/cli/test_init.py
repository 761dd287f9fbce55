"""A folder and nothing else: `init` and `launch FOLDER`."""

import os
from pathlib import Path

import pytest

from igkd_hpo.api import init as api
from igkd_hpo.api import launch as launching
from igkd_hpo.api.init import study_name
from igkd_hpo.config.reading import parse_study, read_study
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open
from tests.cli.conftest import Workspace
from tests.fixtures.measuring import MeasuringHere
from tests.starting.test_images import folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A working directory with a folder of small images, where networks are measured without processes."""
    monkeypatch.setattr(api, "Measuring", MeasuringHere)
    folder(tmp_path / "trees", [(8, 8)] * 40)
    return Workspace(tmp_path)


def test_init_writes_a_valid_file_once(bare: Workspace) -> None:
    said = bare.here("init", "trees", "--under", "parameters=300k").stderr
    study = read_study(bare.folder / "trees.yaml")
    assert (study.name, study.dataset.root, study.dataset.image_size) == ("trees", "trees", 8)
    assert study.limits.parameters == 300_000
    assert "trees.yaml: written" in said
    assert "about " in said
    bare.here("validate", "trees.yaml")
    written = (bare.folder / "trees.yaml").read_text()
    assert bare.refused_here("init", "trees", code=2).startswith("error: trees.yaml is there already")  # at once
    assert (bare.folder / "trees.yaml").read_text() == written
    other = bare.here("init", "trees", "-o", "-").stdout
    assert parse_study(other, source="standard output").limits.parameters is None


def test_a_machine_that_others_use_is_told_of(bare: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bare.folder)
    told = []
    for load in (0.0, 3.0):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load * (os.cpu_count() or 1), 0.0, 0.0))
        told.append([line for line in api.init("trees", progress=False).about if "this machine is busy" in line])
    assert [len(lines) for lines in told] == [0, 1]
    assert "3.0 processes for each core" in told[1][0]


def refused(workspace: Workspace, *arguments: str) -> str:
    """The last line, which follows notes on how far it was."""
    *notes, line = workspace.here(*arguments, code=2).stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert not any(note.startswith("error") for note in notes)
    return line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nowhere",), "nowhere"),
        (("trees", "--under", "parameter=1"), "did you mean parameters?"),
        (("trees", "--under", "parameters=10"), "mobilenet_v2, layers_removed 15, width 0.25, has "),
        (("trees", "--weights", "a.pth"), "--teacher"),
        (("trees", "--weights", "a.pth", "--teacher", "timm/resnet18"), "is no file"),
        (("trees", "--teacher", "resnet18"), "is not of the form"),
        (("trees", "--teacher", "torchvision/resnet19"), "did you mean"),
        (("trees", "--teacher", "mobilenet_v2"), "no published weights"),
        (("trees", "-o", "trees"), "is a folder"),
        (("trees", "-o", "no/study.yaml"), "there is no folder no"),
        (("trees", "--device", "cuda:99"), "cuda:99"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_line(bare: Workspace, arguments: tuple[str, ...], named: str) -> None:
    assert named in refused(bare, "init", *arguments)
    assert list(bare.folder.glob("*.yaml")) == []


def test_the_data_folder_is_where_a_study_will_look(bare: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bare.folder)
    (bare.folder / "data").mkdir()
    (bare.folder / "trees").rename(bare.folder / "data" / "trees")
    folder(bare.folder / "here", [(8, 8)] * 40)
    monkeypatch.setenv("IGKD_HPO_DATA", "data")
    assert api.init("trees", progress=False).study_file.dataset.root == "trees"
    assert api.init("here", progress=False).study_file.dataset.root == str(bare.folder / "here")


def test_links_that_lead_out_are_followed_when_that_is_said(bare: Workspace) -> None:
    (bare.folder / "trees" / "train" / "ash").rename(bare.folder / "ash")
    (bare.folder / "trees" / "train" / "ash").symlink_to(bare.folder / "ash")
    assert "--follow-links" in refused(bare, "init", "trees")
    bare.here("init", "trees", "--follow-links")
    assert read_study(bare.folder / "trees.yaml").dataset.follow_links


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("flowers", "flowers"),
        ("my photos (2)", "my-photos-2"),
        ("Bl\u00fcten", "Bluten"),
        ("\u82b1", "images"),
        ("-.x", "x"),
        ("digits", "digits-images"),
        ("x" * 200, "x" * 100),
    ],
)
def test_a_folders_name_becomes_a_studys(given: str, name: str, tmp_path: Path) -> None:
    (tmp_path / given).mkdir()
    assert study_name(tmp_path / given) == name


def test_launch_writes_the_file_and_goes_on_with_it(bare: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bare.folder)
    settings, quiet = launching.settings_here(), launching.make_console(False)
    first = launching._first_study("trees", "auto", settings, quiet)
    text = (bare.folder / "trees.yaml").read_text()
    assert parse_study(text, source="trees.yaml") == first
    (bare.folder / "trees.yaml").write_text(text.replace("n_trials:", "n_trials: 7  #"))
    assert launching._first_study("trees/", "auto", settings, quiet).n_trials == 7
    shown = bare.here("launch", "trees", "--dry-run")
    assert "7 trials" in shown.stdout


def test_a_file_of_other_images_is_not_taken_for_the_folders(bare: Workspace) -> None:
    folder(bare.folder / "other" / "trees", [(8, 8)] * 40)
    bare.here("init", "trees")
    assert "is of other images (trees)" in bare.refused_here("launch", "other/trees", code=2)


def test_a_file_of_another_study_is_not_taken_for_the_one_of_the_name(bare: Workspace) -> None:
    bare.here("init", "trees")
    file = bare.folder / "trees.yaml"
    study, text = read_study(file), file.read_text()
    storage = open_storage(bare.url, create=True)
    create_or_open(storage, study, n_trials=None, pins=None)
    storage.engine.dispose()
    assert "study trees" in bare.here("launch", "trees", "--dry-run").stdout
    file.write_text(text.replace("name: trees", "name: trees-best", 1))
    line = bare.refused_here("launch", "trees", "--dry-run", code=2)
    assert "is of study trees-best" in line
    assert "study trees-best" in bare.here("launch", "./trees.yaml", "--dry-run").stdout
    file.rename(bare.folder / "best.yaml")
    assert "study trees:" in bare.here("launch", "trees", "--dry-run").stdout


def test_a_dry_run_of_a_folder_writes_nothing(bare: Workspace) -> None:
    bare.here("launch", "trees", "--dry-run")
    assert list(bare.folder.glob("*.yaml")) == []


def test_a_name_that_is_no_folder_is_a_studys(bare: Workspace) -> None:
    (bare.folder / "digits").mkdir()
    assert "study digits" in bare.here("launch", "digits", "--dry-run").stdout
    assert "no study or folder named 'tree'" in bare.refused_here("launch", "tree", code=2)
