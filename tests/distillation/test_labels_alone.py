"""The last epochs on labels alone, and the first blocks that stay the teacher's until then."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.blocks import copy_prefix
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.training import Training

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]


class Asked:
    """A teacher that counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        self.times += 1
        return torch.nn.functional.one_hot(rows % 3, 3).float()


@pytest.mark.parametrize(
    ("share", "epochs", "alone"),
    [(0.0, 3, []), (0.3, 10, [8, 9, 10]), (0.9, 10, list(range(2, 11))), (0.7, 10, list(range(4, 11))),
     (0.01, 10, [10]), (0.9, 2, [2]), (0.9, 1, [])],
)  # fmt: skip
def test_which_epochs_they_are(share: float, epochs: int, alone: list[int], recipe: MakeRecipe) -> None:
    used = recipe(labels_alone=share, epochs=epochs)
    assert [epoch for epoch in range(1, epochs + 2) if used.has_labels_alone(epoch)] == alone


def test_the_last_epochs_are_cross_entropy_and_ask_no_teacher(
    data: TrainingData, recipe: MakeRecipe, tiny_network: Callable[[], Network]
) -> None:
    """They go on as a training that never had a teacher does, from the same state, bit for bit."""
    taught, asked = recipe(alpha=0.5, osakd_weight=0.5, labels_alone=0.5, epochs=4), Asked()
    training = Training(tiny_network(), data, taught, device=CPU, teaching=asked)
    running = training.epochs()
    next(running), next(running)
    assert asked.times == 6, "70 images in batches of 32, two epochs"
    plain = Training(tiny_network(), data, recipe(alpha=0.0, epochs=4), device=CPU, teaching=None)
    plain.load_state_dict(copy.deepcopy(training.state_dict()))
    third = next(running)
    resumed = Training(tiny_network(), data, taught, device=CPU, teaching=asked)
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    fourth = next(running)
    assert asked.times == 6
    assert [metrics.train_loss for metrics in plain.epochs()] == [third.train_loss, fourth.train_loss]
    assert [metrics.train_loss for metrics in resumed.epochs()] == [fourth.train_loss], "resumed among them"
    whole = Training(tiny_network(), data, recipe(alpha=0.5, osakd_weight=0.5, epochs=4), device=CPU, teaching=Asked())
    assert [metrics.train_loss for metrics in whole.epochs()][2] != third.train_loss


def make(layers_removed: int, seed: int) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        body = mobilenet_v2(num_classes=3, width=0.25, layers_removed=layers_removed)
        return Network(body, [0.5] * 3, [0.3] * 3)


@pytest.mark.parametrize(
    ("init", "optimizer"), [("teacher_prefix", "sgd"), ("teacher_prefix", "adam"), ("random", "sgd")]
)
def test_first_blocks_stay_the_teachers_until_labels_are_alone(init, optimizer, data, recipe):
    """Batch statistics too; another student has no blocks of the teacher's, and nothing of it stays."""
    teacher, student = make(13, seed=1), make(15, seed=2)
    copy_prefix(student, teacher)
    used = recipe(init=init, frozen_blocks=2, labels_alone=0.5, epochs=2, learning_rate=0.01, optimizer=optimizer)
    training = Training(student, data, used, device=CPU, teaching=Asked())

    def same(block):
        mine, others = (network.body.features[block].state_dict() for network in (student, teacher))
        return [torch.equal(mine[name], others[name]) for name in mine]

    running = training.epochs()
    next(running)
    frozen = init == "teacher_prefix"
    assert all(same(0)) == all(same(1)) == frozen
    assert not any(same(2)), "the next block learns, its statistics and their count too"
    next(running)
    assert not any([*same(0), *same(1)]), "labels alone: all of it learns"
