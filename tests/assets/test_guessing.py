"""What is better than guessing: by hand, and by how often guesses pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from igkd_hpo.assets.dataset import Dataset, prepare_dataset
from igkd_hpo.assets.guessing import beats_guessing
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher import Teacher, prepare_teacher, teacher_asset
from igkd_hpo.assets.teacher_check import check_accuracy
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.metrics import METRICS, Metric
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import TeacherError
from igkd_hpo.settings import Settings

from .conftest import RecordingProgress, coded_image, make_study, write_png


def labels(*images: int) -> torch.Tensor:
    return torch.arange(len(images)).repeat_interleave(torch.tensor(images))


@pytest.mark.parametrize(
    ("images", "accepted"),
    [
        ((57, 3), {"balanced_accuracy", "macro_f1"}),  # 570 to 30, of which a tenth validates: accuracy has 95 % anyway
        ((46, 2), {"balanced_accuracy", "macro_f1"}),
        ((59, 1), set()),  # one rare image is right by chance in one of 60
        ((30, 30), set(METRICS)),
        ((50, 3, 3), {"balanced_accuracy", "macro_f1"}),
        ((20, 20, 20), set(METRICS)),
    ],
)
def test_a_perfect_teacher_is_told_from_guessing_where_it_can_be(images: tuple[int, ...], accepted: set[str]) -> None:
    truth = labels(*images)
    found = {metric for metric in METRICS if beats_guessing(truth, truth, metric, num_classes=len(images))}
    assert found == accepted


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("images", [(570, 30), (300, 200, 100)])
def test_one_answer_for_all_is_guessing(metric: Metric, images: tuple[int, ...]) -> None:
    truth = labels(*images)
    for answer in range(len(images)):
        assert not beats_guessing(torch.full_like(truth, answer), truth, metric, num_classes=len(images))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("images", [(90, 10), (80, 15, 5)])
def test_answers_by_chance_hardly_ever_pass(metric: Metric, images: tuple[int, ...]) -> None:
    truth, draw = labels(*images), np.random.default_rng(0)
    shares = np.array(images) / sum(images)
    guesses = [torch.from_numpy(draw.choice(len(images), len(truth), p=shares)) for _ in range(100)]
    assert sum(beats_guessing(guess, truth, metric, num_classes=len(images)) for guess in guesses) <= 1


def test_a_weak_teacher_that_f1_calls_worse_than_guessing_is_refused() -> None:
    truth = labels(950, 50)
    draw = np.random.default_rng(0)
    takes_for_rare = draw.random(1000) < np.where(truth.numpy() == 1, 0.8, 0.5)
    answers = torch.from_numpy(takes_for_rare.astype(np.int64))
    assert beats_guessing(answers, truth, "balanced_accuracy", num_classes=2)
    assert not beats_guessing(answers, truth, "macro_f1", num_classes=2)


@pytest.fixture
def unbalanced(tmp_path: Path, own_teacher: None) -> None:
    for label, (name, count) in enumerate((("crack", 30), ("fine", 570))):
        for number in range(count):
            write_png(tmp_path / "images" / "train" / name / f"{number:03d}.png", coded_image(label, number))


def prepared(study: Study, settings: Settings, store: AssetStore) -> Teacher:
    progress = RecordingProgress()
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    return prepare_teacher(study, dataset, settings, store, device=torch.device("cpu"), progress=progress)


@pytest.mark.usefixtures("unbalanced")
def test_a_perfect_teacher_of_570_images_to_30_is_judged_by_the_metric(settings: Settings, store: AssetStore) -> None:
    split = {"validation_fraction": 0.1, "test_fraction": 0.2}
    by_accuracy = make_study(dataset=split)
    balanced, f1 = (make_study(dataset=split, metric=metric) for metric in ("balanced_accuracy", "macro_f1"))
    with pytest.raises(TeacherError, match="metric: balanced_accuracy"):
        prepared(by_accuracy, settings, store)
    made = prepared(balanced, settings, store)
    assert made.validation_accuracy == 1
    # The other studies find the same teacher, and judge it by their own metric.
    found = prepared(f1, settings, store)
    assert (found.folder, found.validation_accuracy) == (made.folder, 1)
    with pytest.raises(TeacherError, match="metric: balanced_accuracy"):
        prepared(by_accuracy, settings, store)


@pytest.mark.usefixtures("unbalanced")
@pytest.mark.parametrize("name", ["hopeless", "mirrored"])
def test_a_teacher_that_guesses_is_refused(name: str, settings: Settings, store: AssetStore) -> None:
    for metric in ("balanced_accuracy", "macro_f1"):
        study = make_study(metric=metric, teacher={"architecture": f"own_teacher:{name}"})
        with pytest.raises(TeacherError, match="nothing to teach"):
            prepared(study, settings, store)


@pytest.mark.usefixtures("own_teacher", "images")
def test_a_teacher_keeps_its_record_and_is_measured_in_another_metric(settings: Settings, store: AssetStore) -> None:
    first = prepared(make_study(), settings, store)
    dataset = prepare_dataset(make_study().dataset, settings, store, RecordingProgress())
    assert "judged" not in teacher_asset(make_study(), dataset, store).facts
    again = prepared(make_study(metric="macro_f1"), settings, store)
    assert (again.folder, again.sha256, again.validation_accuracy) == (first.folder, first.sha256, 1)


@pytest.mark.usefixtures("unbalanced")
def test_weights_are_advised_for_a_teacher_that_is_trained_here_and_guesses(
    settings: Settings, store: AssetStore
) -> None:
    teacher = {"architecture": "mobilenet_v2", "width": 0.1, "epochs": 1, "learning_rate": 1e-6}
    study = make_study(metric="balanced_accuracy", teacher=teacher, augmentation={"crop_padding": 0})
    with pytest.raises(TeacherError, match=r"teacher\.class_weights: balanced"):
        prepared(study, settings, store)


@pytest.mark.usefixtures("own_teacher", "images")
@pytest.mark.parametrize("metric", METRICS)
def test_noise_on_many_images_is_not_taken_for_bad_luck(metric: Metric, settings: Settings, store: AssetStore) -> None:
    dataset = prepare_dataset(make_study().dataset, settings, store, RecordingProgress())
    times = 2000 // len(dataset.validation_labels)
    many = replace(
        dataset,
        validation_images=dataset.validation_images.repeat(times, 1, 1, 1),
        validation_labels=dataset.validation_labels.repeat(times),
    )
    draw = torch.Generator().manual_seed(0)
    logits = torch.rand(len(many.validation_labels), many.num_classes, generator=draw)
    with pytest.raises(TeacherError, match="nothing to teach"):
        check_accuracy(one_answer(many), many, logits, device=torch.device("cpu"), metric=metric)


@pytest.mark.usefixtures("own_teacher", "images")
@pytest.mark.parametrize(("more", "verdict"), [(0, "nothing to teach"), (1, "nothing to teach"), (4, "luck")])
def test_a_teacher_that_would_be_better_than_guessing_on_more_images_is_not_said_to_know_nothing(
    more: int, verdict: str, settings: Settings, store: AssetStore
) -> None:
    dataset = prepare_dataset(make_study().dataset, settings, store, RecordingProgress())
    labels = dataset.validation_labels
    common = int(torch.bincount(labels).argmax())
    answers = torch.full_like(labels, common)
    others = (labels != common).nonzero().flatten()[:more]
    answers[others] = labels[others]
    logits = torch.nn.functional.one_hot(answers, dataset.num_classes).float()
    with pytest.raises(TeacherError, match=verdict):
        check_accuracy(one_answer(dataset), dataset, logits, device=torch.device("cpu"), metric="accuracy")


def one_answer(dataset: Dataset) -> Network:
    """A network that no other normalisation would help."""

    class Body(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(1, dataset.num_classes).expand(len(images), -1)

    return Network(Body(), [0.5] * 3, [0.5] * 3)
