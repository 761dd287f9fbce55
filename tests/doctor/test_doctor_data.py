"""Faults planted in the images and in the teacher, one at a time; nothing else may be found beside them."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import prepare_assets
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.doctor import checks_table
from tests.assets.conftest import write_png

from .conftest import CLASSES, OWN_TEACHER, Patient, quarter_image


def test_nothing_is_found_in_a_healthy_study(patient: Patient) -> None:
    found = patient.examine()
    assert [check for check in found.checks if check.verdict is not CheckVerdict.OK] == []
    assert found["data: images"].found == "153 train, 103 validation, 64 test; 4 classes, 8x8 pixels"
    assert {check.group for check in found.checks} == {"study", "data", "teacher", "assets", "storage", "devices"}
    names = [(check.group, check.name) for check in found.checks]
    assert len(names) == len(set(names))


def test_the_examination_makes_no_database_and_no_teacher(patient: Patient) -> None:
    patient.examine()
    assert not patient.settings.paths.database.exists()
    kinds = {path.name.rpartition("-")[0] for path in patient.settings.paths.assets.iterdir() if "-" in path.name}
    assert kinds == {"dataset", "test-split"}


def test_assets_that_are_there_need_no_room_and_must_be_whole(patient: Patient) -> None:
    large = {
        "dataset": {"image_size": 64},  # its maps take 1.2 MiB
        "augmentation": {"crop_padding": 0, "horizontal_flip": False},
        "attribution": {"n_steps": 8},
    }
    before = patient.examine(**large)
    assert before["assets: maps"].found == "will be made, 1.2 MiB"
    prepare_assets(patient.study(**large), patient.settings, device="cpu", progress=SilentProgress())
    found = patient.examine(**large)
    assert found.faults | found.warnings == set()
    assert found["assets: maps"].found.startswith("there")
    assert found["assets: logits"].found.startswith("there")
    needs = [float(each["assets: disk space"].found.split()[6]) for each in (before, found)]
    assert needs[0] - needs[1] == pytest.approx(1.2, abs=0.15)

    (maps,) = patient.settings.paths.assets.glob("maps-*/maps.npy")
    content = bytearray(maps.read_bytes())
    content[-1] ^= 1
    maps.write_bytes(content)
    found = patient.examine(**large)
    assert found.faults == {"assets: maps"}
    assert "delete that folder" in found["assets: maps"].advice


def test_a_teacher_that_is_still_to_be_trained_is_no_fault(patient: Patient) -> None:
    found = patient.examine(teacher={"architecture": "mobilenet_v2", "width": 0.5, "epochs": 7})
    assert found.faults | found.warnings == set()
    assert "will be trained for 7 epochs" in found["teacher: network"].found


def test_unreadable_images_are_named(patient: Patient) -> None:
    damaged = patient.images / "train" / "west" / "007.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    found = patient.examine()
    assert (found.faults, found.warnings) == (set(), {"data: unreadable"})
    assert "train/west/007.png" in found["data: unreadable"].found


def test_a_file_that_is_no_image_is_a_warning(patient: Patient) -> None:
    (patient.images / "train" / "west" / "notes.txt").write_text("taken in May")
    found = patient.examine()
    assert (found.faults, found.warnings) == (set(), {"data: unreadable"})


def test_what_the_reader_saw_has_a_line_of_its_own(patient: Patient) -> None:
    path = patient.images / "train" / "west" / "007.png"
    Image.open(path).save(path, exif=b"garbage!")
    write_png(patient.images / "valid" / "west" / "0.png", quarter_image(3, 1))
    found = patient.examine()
    assert (found.faults, found.warnings) == (set(), {"data: metadata", "data: folders"})
    assert found["data: metadata"].found.startswith("1 of 320 images have damaged metadata")
    assert "valid/" in found["data: folders"].found
    assert "rename valid to val" in found["data: folders"].advice


def test_the_bits_of_deep_images_are_told(patient: Patient) -> None:
    for path in (patient.images / "train").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    found = patient.examine(teacher={"architecture": "mobilenet_v2"})
    assert found.warnings == {"data: depth"}
    assert "320 of 320 images have 16 bits a channel and use at most 12" in found["data: depth"].found
    found = patient.examine(dataset={"bits": 12}, teacher={"architecture": "mobilenet_v2"})
    assert (found.faults, found.warnings) == (set(), set())


def test_copies_in_val_are_found_by_their_names(patient: Patient) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(30):
            pixels = quarter_image(label, 1000 + 30 * label + number)
            write_png(patient.images / "val" / name / f"{number}.png", pixels)
    assert patient.examine().faults == set()
    shutil.copy(patient.images / "train" / "south" / "003.png", patient.images / "val" / "south" / "leak.png")
    found = patient.examine()
    assert found.faults == {"data: duplicates"}
    assert "train/south/003.png and val/south/leak.png" in found["data: duplicates"].found
    assert found["data: splits"].verdict is CheckVerdict.OK


def test_copies_of_test_images_are_named(patient: Patient) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(10):
            pixels = quarter_image(label, 1000 + 10 * label + number)
            write_png(patient.images / "test" / name / f"{number}.png", pixels)
    assert patient.examine().faults == set()
    shutil.copy(patient.images / "train" / "south" / "003.png", patient.images / "test" / "south" / "leak.png")
    found = patient.examine()
    assert found.faults == {"data: duplicates"}
    told = found["data: duplicates"].found
    assert "1 of 41 test images are also in" in told
    assert "train/south/003.png and test/south/leak.png" in told


def test_an_image_in_two_classes_is_named(patient: Patient) -> None:
    for number in range(20):
        shutil.copy(
            patient.images / "train" / "east" / f"{number:03d}.png",
            patient.images / "train" / "west" / f"east-{number}.png",
        )
    found = patient.examine()
    assert found.faults == {"data: labels", "data: duplicates"}  # of 20 pairs some are cut apart by the split
    assert "'east' and 'west'" in found["data: labels"].found


def test_a_blank_image_is_a_warning(patient: Patient) -> None:
    for number in range(8):  # several, so that the split leaves one for training
        write_png(patient.images / "train" / "east" / f"blank-{number}.png", np.full((8, 8, 3), number, np.uint8))
    found = patient.examine()
    assert (found.faults, found.warnings) == (set(), {"data: blank"})


def _keep(patient: Patient, name: str, count: int) -> None:
    for path in sorted((patient.images / "train" / name).iterdir())[count:]:
        path.unlink()


def test_a_rare_class_is_a_warning(patient: Patient) -> None:
    _keep(patient, "west", 7)
    for name in ("north", "south"):
        _keep(patient, name, 75)
    found = patient.examine(dataset={"validation_fraction": 0.55})
    assert (found.faults, found.warnings) == (set(), {"data: classes"})
    assert "of 'west'" in found["data: classes"].found


def test_classes_that_make_accuracy_blind_are_a_fault(patient: Patient) -> None:
    for name in ("north", "south", "west"):
        _keep(patient, name, 6)
    for number in range(200):
        write_png(patient.images / "train" / "east" / f"more-{number}.png", quarter_image(0, 1000 + number))
    found = patient.examine()
    assert "data: classes" in found.faults
    assert "always guessing 'east'" in found["data: classes"].found
    assert "metric: balanced_accuracy" in found["data: classes"].advice


def test_classes_that_make_accuracy_blind_are_none_of_balanced_accuracy(patient: Patient) -> None:
    for name in ("north", "south"):
        shutil.rmtree(patient.images / "train" / name)
    _keep(patient, "west", 24)
    for number in range(400):
        write_png(patient.images / "train" / "east" / f"more-{number}.png", quarter_image(0, 1000 + number))
    (patient.folder / "quarters.py").write_text(
        OWN_TEACHER + "\nclass Two(Corners):\n    def forward(self, x):\n"
        "        return super().forward(x)[:, [0, 3]]\n\ndef two():\n    return Two()\n"
    )
    assert patient.examine(teacher={"architecture": "quarters:two"}).faults == {"data: classes"}
    balanced = patient.examine(teacher={"architecture": "quarters:two"}, metric="balanced_accuracy")
    assert balanced.faults == set()
    assert "data: validation" in balanced.warnings  # an image of the rare class is more than a point
    assert "'west'" in balanced["data: validation"].found


def test_an_image_in_two_classes_is_named_wherever_the_splits_have_it(patient: Patient) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(10):
            write_png(
                patient.images / "test" / name / f"{number}.png", quarter_image(label, 1000 + 10 * label + number)
            )
    shutil.copy(patient.images / "test" / "east" / "3.png", patient.images / "test" / "west" / "torn.png")
    found = patient.examine()
    assert found.faults == {"data: labels"}
    assert "test/east/3.png and test/west/torn.png" in found["data: labels"].found


def test_too_few_validation_images_to_judge_a_teacher_are_a_fault(patient: Patient) -> None:
    for name in CLASSES:
        _keep(patient, name, 20)
    for name in ("north", "south"):
        shutil.rmtree(patient.images / "train" / name)
    found = patient.examine(dataset={"validation_fraction": 0.2}, teacher={"architecture": "mobilenet_v2"})
    assert "data: validation" in found.faults
    assert "validation images are too few" in found["data: validation"].found


@pytest.mark.parametrize(("fraction", "may_grow"), [(0.2, True), (0.25, False)])  # init goes no further
def test_few_validation_images_are_a_warning(patient: Patient, fraction: float, may_grow: bool) -> None:
    found = patient.examine(dataset={"validation_fraction": fraction})
    assert (found.faults, found.warnings) == (set(), {"data: validation"})
    assert ("validation_fraction" in found["data: validation"].advice) is may_grow


def test_without_images_the_rest_is_told_as_not_checked(patient: Patient) -> None:
    shutil.rmtree(patient.images)
    found = patient.examine()
    assert found.faults == {"data: images"}
    assert str(patient.images) in found["data: images"].found
    hidden = {check.group for check in found.checks if check.verdict is CheckVerdict.NOT_CHECKED}
    assert hidden == {"data", "teacher", "assets", "devices"}
    assert found["storage: reachable"].verdict is CheckVerdict.OK
    shown = io.StringIO()
    Console(file=shown, width=400).print(checks_table(found.checks))
    assert sum("the images cannot be used" in line for line in shown.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("teacher", "faults"),
    [
        ({"architecture": "quarters:hopeless"}, {"accuracy", "attribution"}),
        ({"architecture": "quarters:Swapped"}, {"class order"}),
        ({"architecture": "quarters:Absolute", "normalize": [[0.9] * 3, [1.0] * 3]}, {"normalisation"}),
        ({"architecture": "quarters:BatchStatistics"}, {"evaluation mode", "attribution"}),
        ({"architecture": "quarters:Dropout"}, {"evaluation mode"}),
        ({"architecture": "quarters:nan"}, {"evaluation mode", "accuracy", "attribution"}),
        ({"architecture": "quarters:NoGradient"}, {"attribution"}),
        ({"architecture": "quarters:steep"}, {"attribution"}),
        ({"architecture": "elsewhere:good"}, {"network"}),
        ({"architecture": "mobilenet_v2", "checkpoint": "missing.pt"}, {"network"}),
    ],
    ids=lambda value: value.get("architecture") if isinstance(value, dict) else "",
)
def test_faults_of_a_teacher(patient: Patient, teacher: dict[str, object], faults: set[str]) -> None:
    found = patient.examine(teacher=teacher)
    assert found.faults == {f"teacher: {name}" for name in faults}
    assert found.warnings == set()
    assert all(found[fault].advice for fault in found.faults)


def test_the_faulty_one_of_several_teachers_is_named(patient: Patient) -> None:
    for name, steep in (("good", 4.0), ("hopeless", 0.0)):
        state = {"steep": torch.tensor(steep), "ballast": torch.zeros(100_000)}
        torch.save(state, patient.folder / f"{name}.pt")
    found = patient.examine(teacher={"checkpoint": ["good.pt", "good.pt"]})
    assert found.faults == set()
    assert found["teacher: network"].found == "2 of quarters:good, given"
    found = patient.examine(teacher={"checkpoint": ["good.pt", "hopeless.pt"]})
    assert found.faults == {"teacher: accuracy", "teacher: attribution"}
    assert found["teacher: accuracy"].found.startswith("teacher 2 of 2: ")


def test_chance_and_neighbours_are_told_apart(patient: Patient) -> None:
    chance = patient.examine(teacher={"architecture": "quarters:Dropout"})["teacher: evaluation mode"]
    neighbours = patient.examine(teacher={"architecture": "quarters:BatchStatistics"})["teacher: evaluation mode"]
    assert "dropout" in chance.advice
    assert "BatchNorm" in neighbours.advice


def test_the_order_of_classes_that_would_fit_is_told(patient: Patient) -> None:
    told = patient.examine(teacher={"architecture": "quarters:Swapped"})["teacher: class order"].found
    assert "its 0 is 'north', its 1 is 'east'" in told
    assert "right on 50.49 % more of the images" in told


def test_a_student_as_large_as_its_teacher_is_a_warning(patient: Patient) -> None:
    found = patient.examine(hyperparameters={"width": 1.0, "layers_removed": 0})
    assert (found.faults, found.warnings) == (set(), {"teacher: size"})


def test_a_storage_folder_that_cannot_be_made_is_a_fault(patient: Patient) -> None:
    (patient.folder / "storage").write_text("in the way")
    found = patient.examine(storage=f"sqlite:///{patient.folder / 'elsewhere.db'}")
    assert found.faults == {"data: images", "assets: storage folder"}


@pytest.mark.parametrize(("free", "verdict"), [(1000, CheckVerdict.FAULT), (1 << 40, CheckVerdict.OK)])
def test_the_disk_must_have_room(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, free: int, verdict: CheckVerdict
) -> None:
    patient.examine()  # which makes the data set, and would not without any room
    usage = shutil.disk_usage(patient.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    assert patient.examine()["assets: disk space"].verdict is verdict


def test_the_look_into_the_test_split_is_logged(patient: Patient) -> None:
    patient.examine()
    assert "doctor's duplicate check" in Path(patient.settings.paths.test_split_log).read_text()
