"""What is better than guessing: by hand, and by how often guesses pass."""

import numpy as np
import pytest
import torch

from igkd_hpo.assets.guessing import beats_guessing
from igkd_hpo.distillation.metrics import METRICS, Metric


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
