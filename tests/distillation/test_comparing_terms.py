"""The terms whose files compare: they learn beside the student, resume, and are no part of it."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.features import FeatureTerms, check_comparable, common_blocks
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.training import Training
from igkd_hpo.errors import UsageError
from tests.distillation.conftest import descend, through_a_file

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]
ALL = {"rtk_weight": 1.0, "rtk_keys": 2, "skt_intra_weight": 0.5, "skt_inter_weight": 0.5}


def make(*, width: float = 0.25, layers_removed: int = 13, seed: int = 0) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        body = mobilenet_v2(num_classes=3, width=width, layers_removed=layers_removed)
        return Network(body, [0.5] * 3, [0.3] * 3)


@pytest.fixture
def teacher() -> Network:
    network = make(layers_removed=11, seed=1)
    network(torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


class Strided(nn.Module):
    """A network of another family, with maps at the strides that it names."""

    def __init__(self, *strides: int) -> None:
        super().__init__()
        self.taps = {f"at_{stride}": stride for stride in strides}
        self.at_2 = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.at_4 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.at_4(self.at_2(x)).mean(dim=(2, 3)))
        return logits


def strided(*strides: int) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        return Network(Strided(*strides), [0.5] * 3, [0.3] * 3)


@pytest.mark.parametrize(("last", "blocks"), [(1, (0, 1)), (5, (0, 1, 3, 5)), (13, (0, 1, 3, 6, 10, 13))])
def test_blocks_of_each_shape(last: int, blocks: tuple[int, ...]) -> None:
    assert common_blocks(last) == blocks


@pytest.mark.parametrize("weight", ["rtk_weight", "skt_intra_weight", "skt_inter_weight"])
@pytest.mark.parametrize("student", [lambda: make(width=0.5), lambda: strided(2, 4)], ids=["blocks", "strides"])
def test_each_comes_down_when_it_is_all_that_is_trained(weight, student, teacher, recipe):
    used = recipe(alpha=0.0, overlay_probability=0.0, rtk_keys=2, **{weight: 1.0})
    network = student()
    terms = FeatureTerms(network, teacher, used, image_size=(8, 8))
    pixels = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    losses = descend(network, terms, pixels, rate=1e-2, logits=False)
    assert losses[-1] < 0.8 * losses[0], losses


def test_skt_of_a_student_that_is_its_teacher_is_nothing(teacher: Network, recipe: MakeRecipe) -> None:
    pixels = torch.rand(8, 3, 8, 8)
    terms = FeatureTerms(teacher, teacher, recipe(skt_intra_weight=1.0, skt_inter_weight=1.0), image_size=(8, 8))
    assert not list(terms.learned.parameters()), "equal channels need no convolution"
    taught = terms.ask_teacher(pixels, logits=False)
    loss = terms.loss(terms.ask_student(pixels)[0], taught, torch.zeros(8, dtype=torch.int64))
    assert loss.abs().item() < 1e-5


def test_what_is_learned_is_trained_kept_and_no_part_of_the_student(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    used = recipe(epochs=2, learning_rate=0.02, **ALL)

    def start() -> Training:
        return Training(make(width=0.5), data, used, device=CPU, teaching=None, teacher=teacher)

    straight = start()
    metrics = list(straight.epochs())
    first = start()
    fresh = {name: value.clone() for name, value in first.state_dict()["learned"].items()}
    next(first.epochs())
    state = through_a_file(first.state_dict())
    unmoved = {name for name, value in fresh.items() if torch.equal(state["learned"][name], value)}
    assert not any("weight" in name or "positions" in name for name in unmoved), unmoved
    assert {"rtk.positions.0", "skt.adapters.0.weight"} <= fresh.keys()
    second = start()
    second.load_state_dict(state)
    (rest,) = second.epochs()
    assert rest.train_loss == metrics[1].train_loss
    for part in ("body", "learned"):
        mine, others = second.state_dict()[part], straight.state_dict()[part]
        assert all(torch.equal(mine[name], others[name]) for name in others)
    plain = make(width=0.5)
    plain.body.load_state_dict(second.network.body.state_dict(), strict=True)
    assert count_parameters(second.network) == count_parameters(plain)


def test_a_training_without_them_keeps_what_it_kept_before(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    """States of trials that began earlier are gone on with."""
    training = Training(make(), data, recipe(hint_weight=1.0), device=CPU, teaching=None, teacher=teacher)
    assert training.state_dict().keys() == {"completed_epochs", "body", "adapter", "optimizer", "schedule", "scaler"}


def test_pairs_of_places_need_two(teacher: Network, recipe: MakeRecipe) -> None:
    lone = strided(4)
    with pytest.raises(UsageError, match=r" 4 alone .*skt_inter_weight"):
        check_comparable(lone, teacher, (8, 8), in_pairs=True)
    check_comparable(lone, teacher, (8, 8))
    check_comparable(strided(2, 4), teacher, (8, 8), in_pairs=True)
    with pytest.raises(UsageError, match=r" 4 alone .*skt_inter_weight"):
        FeatureTerms(lone, teacher, recipe(skt_inter_weight=1.0), image_size=(8, 8))
    assert FeatureTerms(lone, teacher, recipe(skt_intra_weight=1.0), image_size=(8, 8)).places == (4,)
