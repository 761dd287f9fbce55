"""Metrics of a network's answers, against scikit-learn and by hand, and what becomes of each class."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
from torch import Tensor

from igkd_hpo.distillation.class_table import class_table, table_of_record
from igkd_hpo.distillation.evaluation import judge, score, tally
from igkd_hpo.distillation.metrics import METRICS, Metric, heading, measured
from igkd_hpo.distillation.tally import Tally, largest_step, of_guessing, resolution

CLASSES = 5
PAIRS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60)


def tensors(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    answers, labels = torch.tensor(pairs).T
    return answers, labels


@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn warns of classes that occur in answers alone
@given(PAIRS)
def test_metrics_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    answers, labels = tensors(pairs)
    truth, found = labels.numpy(), answers.numpy()
    expected = {
        "accuracy": accuracy_score(truth, found),
        "balanced_accuracy": balanced_accuracy_score(truth, found),
        "macro_f1": f1_score(truth, found, labels=np.unique(truth), average="macro", zero_division=0),
    }
    logits = torch.nn.functional.one_hot(answers, CLASSES).float()
    for metric in METRICS:
        value = score(answers, labels, metric, num_classes=CLASSES)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[metric], abs=1e-6)
        assert judge(logits, labels, metric) == pytest.approx(expected[metric], abs=1e-12)


def test_by_hand_where_a_class_is_rare() -> None:
    labels = torch.tensor([0] * 19 + [1])
    common = torch.zeros(20, dtype=torch.int64)
    values = {metric: score(common, labels, metric, num_classes=2).item() for metric in METRICS}
    assert values == pytest.approx({"accuracy": 0.95, "balanced_accuracy": 0.5, "macro_f1": 19 / 39}, abs=1e-6)


def test_a_class_that_does_not_occur_counts_in_no_mean() -> None:
    labels, answers = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 1])
    assert score(answers, labels, "balanced_accuracy", num_classes=3).item() == pytest.approx(0.75)
    assert score(answers, labels, "macro_f1", num_classes=3).item() == pytest.approx((2 / 3 + 1) / 2)


@given(PAIRS)
def test_a_tally_is_the_confusion_matrix_in_short(pairs: list[tuple[int, int]]) -> None:
    answers, labels = tensors(pairs)
    counted = tally(answers, labels, num_classes=CLASSES)
    matrix = confusion_matrix(labels.numpy(), answers.numpy(), labels=range(CLASSES))
    assert counted.images == matrix.sum(axis=1).tolist()
    assert counted.answered == matrix.sum(axis=0).tolist()
    assert counted.right == matrix.diagonal().tolist()
    wrong = matrix - np.diag(matrix.diagonal())
    assert counted.mistaken == wrong.max(axis=1).tolist()
    assert counted.mistaken_for == [int(row.argmax()) if row.any() else -1 for row in wrong]


def test_tallies_of_seeds_add_up() -> None:
    first = tally(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 0, 0, 1]), num_classes=3)
    second = tally(torch.tensor([1, 1, 1, 0]), torch.tensor([0, 0, 0, 1]), num_classes=3)
    both = Tally.added([first, second])
    assert (both.images, both.right, both.answered) == ([6, 2, 0], [1, 1, 0], [2, 4, 2])
    assert (both.mistaken_for, both.mistaken) == ([1, 0, -1], [3, 1, 0])


def test_the_worst_classes_come_first() -> None:
    labels = torch.arange(6).repeat_interleave(4)
    answers = labels.clone()
    answers[[4, 5, 8]] = torch.tensor([3, 3, 0])  # two of class 1 are taken for 3, one of class 2 for 0
    names = [f"class {number}" for number in range(7)]
    table = class_table(tally(answers, labels, num_classes=7), names, most=3)
    assert table.count == 6
    assert [(one.name, one.recall, one.mistaken_for) for one in table.worst] == [
        ("class 1", 0.5, "class 3"),
        ("class 2", 0.75, "class 0"),
        ("class 3", 1.0, None),
    ]
    assert table.worst[2].precision == pytest.approx(4 / 6)
    assert table_of_record(table.as_record()) == table
    assert table.as_json()["worst"][0]["recall"] == 0.5


def test_a_class_that_is_never_answered_has_no_precision() -> None:
    table = class_table(tally(torch.tensor([0, 0]), torch.tensor([0, 1]), num_classes=2), ["a", "b"])
    assert (table.worst[0].name, table.worst[0].precision) == ("b", None)


@pytest.mark.parametrize(
    ("metric", "guess", "step", "rounding"),
    [
        ("accuracy", 0.95, 1 / 600, 1 / 600),
        ("balanced_accuracy", 0.5, 1 / 60, (30**-2 + 570**-2) ** 0.5 / 2),
        ("macro_f1", 2 * 570 / 1170 / 2, 1 / 60, (30**-2 + 570**-2) ** 0.5 / 2),
    ],
)
def test_what_guessing_and_one_image_are_worth(metric: Metric, guess: float, step: float, rounding: float) -> None:
    images = [570, 30, 0]
    assert of_guessing(images, metric) == pytest.approx(guess)
    assert largest_step(images, metric) == pytest.approx(step)
    assert resolution(images, metric) == pytest.approx(rounding)


@pytest.mark.parametrize("metric", METRICS)
def test_the_sampling_error_is_the_spread_over_samples(metric: Metric) -> None:
    draw = np.random.default_rng(0)
    images, share = np.array([400, 60, 40]), np.array([0.95, 0.6, 0.75])
    labels = torch.from_numpy(np.repeat(np.arange(3), images))

    def sample() -> Tensor:
        right = draw.random(len(labels)) < share[labels.numpy()]
        other = (labels.numpy() + draw.integers(1, 3, len(labels))) % 3
        return torch.from_numpy(np.where(right, labels.numpy(), other))

    samples = [sample() for _ in range(400)]
    values = [score(one, labels, metric, num_classes=3, dtype=torch.float64).item() for one in samples]
    errors = [tally(one, labels, num_classes=3).sampling_error(metric) for one in samples]
    # Accuracy is given a little more: the images of each class would be drawn by chance too.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3 if metric == "accuracy" else 0.15)


def test_a_perfect_result_is_not_certain() -> None:
    labels = torch.tensor([0] * 57 + [1] * 3)
    assert tally(labels, labels, num_classes=2).sampling_error("balanced_accuracy") > 0.05


def test_people_read_the_name_of_a_metric() -> None:
    assert measured(0.5, "accuracy") == "50.00 %"
    assert measured(0.5, "balanced_accuracy") == "50.00 % balanced accuracy"
    assert heading("macro_f1") == "Macro F1"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("metric", METRICS)
def test_the_host_does_not_wait_for_a_metric(metric: Metric) -> None:
    draw = torch.Generator().manual_seed(0)
    answers, labels = (torch.randint(0, 9, (500,), generator=draw) for _ in range(2))
    there = answers.cuda(), labels.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = score(*there, metric, num_classes=10)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert value.item() == pytest.approx(score(answers, labels, metric, num_classes=10).item(), abs=1e-6)
