"""Several teachers: each its own asset, all of them in one hash, and of folds the one that did not see the image."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from igkd_hpo.assets import logits, teacher, teacher_check, teacher_training
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.folds import assign_folds
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teachers import combined_hash, prepare_teachers
from igkd_hpo.distillation.attribution import integrated_gradients
from igkd_hpo.distillation.views import ShiftedCrops
from igkd_hpo.errors import DataError, TeacherError

from .conftest import make_study

CPU = torch.device("cpu")
TRAINED = {"architecture": "mobilenet_v2", "width": 0.1, "epochs": 1, "normalize": "dataset"}
UNFLIPPED = {"crop_padding": 1, "horizontal_flip": False}
pytestmark = pytest.mark.usefixtures("images", "own_teacher")


def trained(**section):
    return make_study(teacher={**TRAINED, **section}, augmentation=UNFLIPPED, attribution={"n_steps": 2})


def without_maps(study):
    settings = study.hyperparameters.model_copy(update={"overlay_probability": 0.0})
    return study.model_copy(update={"hyperparameters": settings, "controls": ("student",)})


@pytest.fixture
def one_epoch_is_enough(monkeypatch):
    """Let teachers pass that have hardly begun to learn."""
    monkeypatch.setattr(teacher_check, "check_accuracy", lambda *arguments, **options: 0.75)


def numbers_of(images):
    """The number that `coded_image` wrote into each image's corner, which no two images share."""
    return (images[:, 0, 0, 0].int() + 256 * images[:, 1, 0, 0].int()).tolist()


def some_batch(assets, count=40):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(assets.dataset.train_images), (count,), generator=generator)
    numbers = torch.randint(9, (count,), generator=generator)
    views = ShiftedCrops(padding=1, mirrored=False)
    return rows, numbers, views.cut(assets.dataset.train_images[rows], rows, numbers).float() / 255


@pytest.mark.usefixtures("one_epoch_is_enough")
def test_logits_and_map_of_an_image_are_those_of_the_teacher_that_did_not_see_it(settings, progress, monkeypatch):
    seen = []

    class Watched(teacher_training.Training):
        def __init__(self, network, data, *arguments, **options):
            seen.append(set(numbers_of(data.images)))
            super().__init__(network, data, *arguments, **options)

    monkeypatch.setattr(teacher_training, "Training", Watched)
    study = trained(folds=3)
    summary = prepare_assets(study, settings, device="cpu", progress=progress)
    assert [f"training teacher {number} of 3" in progress.tasks for number in (1, 2, 3)] == [True] * 3
    assert summary.teacher_accuracy == 0.75
    assert len(summary.member_accuracies) == 3
    assets = open_assets(study, settings)
    images = assets.dataset.train_images
    numbers = numbers_of(images)
    assert len(set(numbers)) == 45 == len(set().union(*seen))
    networks = assets.teachers.networks(CPU)
    unseen = [[number for number in range(3) if image not in seen[number]] for image in numbers]
    assert all(len(which) == 1 for which in unseen)

    table = torch.from_numpy(assets.logits.array("logits")).float()
    assert table.shape == (45, 9, 2)
    answers = torch.stack([network(images.float() / 255) for network in networks]).detach()
    maps, _ = zip(
        *(
            integrated_gradients(
                network, images.float() / 255, assets.dataset.train_labels,
                baseline=torch.tensor(assets.dataset.mean), n_steps=2,
            )
            for network in networks
        ),
        strict=True,
    )  # fmt: skip
    kept = torch.from_numpy(assets.maps.array("maps")).float()
    for row, (own,) in enumerate(unseen):
        other = (own + 1) % 3
        torch.testing.assert_close(table[row, 4], answers[own, row], atol=2e-3, rtol=2e-3)
        assert not torch.allclose(table[row, 4], answers[other, row], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(kept[row], maps[own][row] / maps[own][row].max(), atol=2e-3, rtol=2e-3)
        assert not torch.allclose(kept[row], maps[other][row] / maps[other][row].max(), atol=2e-3, rtol=2e-3)

    asked = open_assets(trained(folds=3, logits="online"), settings).teaching(CPU)
    batch = some_batch(assets)
    assert torch.equal(assets.teaching(CPU).logits(*batch), asked.logits(*batch))


@pytest.mark.usefixtures("one_epoch_is_enough")
def test_members_are_found_again_one_by_one(settings, progress, store, monkeypatch):
    dataset = prepare_dataset(make_study().dataset, settings, store, progress)
    alone = teacher.prepare_teacher(trained(), dataset, settings, store, device=CPU, progress=progress)
    progress.tasks.clear()
    study = without_maps(trained(members=2))
    summary = prepare_assets(study, settings, device="cpu", progress=progress)
    assert set(progress.tasks) == {"training teacher 2 of 2", "teacher logits of 9 views"}
    assert summary.folders[1] == str(alone.folder)  # member 1 is the one that a single teacher is
    progress.tasks.clear()
    again = prepare_assets(study, settings, device="cpu", progress=progress)
    assert progress.tasks == {}
    assert replace(again, seconds=summary.seconds) == summary

    assets = open_assets(study, settings)
    first, second = assets.teachers.members
    assert assets.teacher_sha256 == assets.teachers.sha256 == summary.teacher_sha256
    assert summary.teacher_sha256 == combined_hash([first.sha256, second.sha256], None)
    assert summary.teacher_sha256 != combined_hash([second.sha256, first.sha256], None)
    assert alone.sha256 == first.sha256 != second.sha256
    assert assets.teacher_parameters == first.parameters == alone.parameters
    pixels = assets.dataset.validation_images.float() / 255
    chances = (first.network(pixels).softmax(1) + second.network(pixels).softmax(1)) / 2
    right = (chances.argmax(1) == assets.dataset.validation_labels).double().mean().item()
    assert summary.teacher_accuracy == pytest.approx(right)

    assert assets.logits.array("logits").shape == (45, 9, 2, 2)
    asked = open_assets(without_maps(trained(members=2, logits="online")), settings).teaching(CPU)
    batch = some_batch(assets)
    assert torch.equal(assets.teaching(CPU).logits(*batch), asked.logits(*batch))
    monkeypatch.setattr(logits, "LARGEST_TABLE", logits.table_bytes(trained(), assets.dataset))
    assert logits.wants_table(trained(), assets.dataset)
    assert logits.wants_table(trained(folds=2), assets.dataset)
    assert not logits.wants_table(study, assets.dataset)

    shutil.rmtree(second.folder)
    prepare_teachers(study, dataset, settings, store, device=CPU, progress=progress)
    assert set(progress.tasks) == {"training teacher 2 of 2"}


def test_a_list_of_checkpoints(settings, store, progress, tmp_path: Path):
    for name, scale in (("steep", 2.0), ("flat", 0.5)):
        torch.save({"scale": torch.tensor(scale)}, tmp_path / f"{name}.pt")
    study = make_study(teacher={"checkpoint": ["steep.pt", "flat.pt"]})
    summary = prepare_assets(study, settings, device="cpu", progress=progress)
    assets = open_assets(study, settings)
    assert [member.network.body.scale.item() for member in assets.teachers.members] == [2.0, 0.5]
    alone = prepare_assets(make_study(teacher={"checkpoint": "flat.pt"}), settings, device="cpu", progress=progress)
    assert summary.folders[2] == alone.folders[1]
    assert summary.member_accuracies == [1, 1]
    # The mean of the logits is explained.
    images, targets = assets.dataset.train_images, assets.dataset.train_labels
    expected, _ = integrated_gradients(
        [member.network for member in assets.teachers.members], images.float() / 255, targets,
        baseline=torch.tensor(assets.dataset.mean), n_steps=32,
    )  # fmt: skip
    made = torch.from_numpy(assets.maps.array("maps").astype("float32") * assets.maps.array("scale")[:, None, None])
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=2e-3)
    turned = prepare_teachers(
        make_study(teacher={"checkpoint": ["flat.pt", "steep.pt"]}),
        assets.dataset, settings, store, device=CPU, progress=progress,
    )  # fmt: skip
    assert turned.sha256 != summary.teacher_sha256


def test_of_several_the_one_that_cannot_teach_is_named(settings, store, progress, tmp_path: Path):
    for name, scale in (("good", 2.0), ("mirrored", -2.0)):
        torch.save({"scale": torch.tensor(scale)}, tmp_path / f"{name}.pt")
    study = make_study(teacher={"checkpoint": ["good.pt", "mirrored.pt"]})
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    with pytest.raises(TeacherError, match=r"^teacher 2 of 2: the teacher gets 0.00 %"):
        prepare_teachers(study, dataset, settings, store, device=CPU, progress=progress)


def test_folds_are_even_in_each_class_and_need_enough_images(settings, store, progress):
    dataset = prepare_dataset(make_study().dataset, settings, store, progress)
    folds = assign_folds(dataset, 4)
    assert torch.equal(folds, assign_folds(dataset, 4))
    assert sorted(torch.bincount(folds).tolist()) == [11, 11, 11, 12]
    for label in (0, 1):
        counts = torch.bincount(folds[dataset.train_labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    with pytest.raises(DataError, match=r"'\w+'.* 2\d .* teacher\.folds .* 40\b"):
        assign_folds(dataset, 40)
