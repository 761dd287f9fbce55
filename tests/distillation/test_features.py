"""The terms on features: blocks apart are the network, adapters are trained and kept, the teacher runs once."""

from collections.abc import Callable

import pytest
import torch

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.blocks import copy_prefix, forward_to, last_common_block, logits_from
from igkd_hpo.distillation.evaluation import forward_in_batches
from igkd_hpo.distillation.features import FeatureTerms
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.teaching import TEACHER_BATCH, OnlineLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.errors import UsageError
from tests.distillation.conftest import descend, through_a_file

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]
ALL_TERMS = {"attention_weight": 4.0, "attention_depths": "stages", "hint_weight": 0.5, "teacher_tail_weight": 0.5}


def make(*, width: float = 0.25, layers_removed: int, seed: int = 0) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        body = mobilenet_v2(num_classes=3, width=width, layers_removed=layers_removed)
        return Network(body, [0.5] * 3, [0.3] * 3)


@pytest.fixture
def teacher() -> Network:
    """Frozen, with batch statistics of its own."""
    network = make(layers_removed=9, seed=1)
    network(torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("block", [0, 4, 7])
def test_a_network_taken_apart_is_the_network_bit_for_bit(block: int) -> None:
    pixels = torch.rand(5, 3, 8, 8)
    together, apart = make(layers_removed=11), make(layers_removed=11)
    features = forward_to(apart, pixels, (0, block))
    assert set(features) == {0, block}
    assert torch.equal(logits_from(apart, features[block], block), together(pixels))
    assert all(torch.equal(a, b) for a, b in zip(together.buffers(), apart.buffers(), strict=True))


def test_the_deepest_block_that_both_have() -> None:
    assert last_common_block(make(layers_removed=11), make(layers_removed=9)) == 7
    assert last_common_block(make(layers_removed=5), make(layers_removed=9)) == 9


def test_a_student_can_begin_as_the_teachers_first_blocks(teacher: Network) -> None:
    student = make(layers_removed=13)
    copy_prefix(student, teacher)
    pixels = torch.rand(4, 3, 8, 8)
    found, expected = forward_to(student.eval(), pixels, (5,)), forward_to(teacher, pixels, (5,))
    torch.testing.assert_close(found[5], expected[5])
    assert student.body.features[0][1].running_mean.abs().max() > 0, "batch statistics are taken too"
    with pytest.raises(ValueError, match=r"block \d+ .* init teacher_prefix .*width"):
        copy_prefix(make(width=1.0, layers_removed=13), teacher)


@pytest.mark.parametrize("count", [32, 64, 70])
def test_one_run_of_the_teacher_gives_the_logits_that_it_gives_alone(
    count: int, teacher: Network, recipe: MakeRecipe
) -> None:
    terms = FeatureTerms(make(layers_removed=11), teacher, recipe(**ALL_TERMS), image_size=(8, 8))
    pixels = torch.rand(count, 3, 8, 8)
    runs = []
    handle = teacher.body.features[0].register_forward_hook(lambda *_: runs.append(1))
    features, _, logits = terms.ask_teacher(pixels, logits=True)
    handle.remove()
    assert len(runs) == -(-count // TEACHER_BATCH)
    assert terms.places == (3, 6, 7)
    assert [feature.shape[0] for feature in features.values()] == [count] * 3
    assert logits is not None
    assert torch.equal(logits, OnlineLogits(teacher).logits(torch.arange(0), None, pixels))  # type: ignore[arg-type]
    assert terms.ask_teacher(pixels, logits=False).logits is None


def test_a_student_that_is_the_teacher_has_nothing_to_learn_and_another_has(
    teacher: Network, recipe: MakeRecipe
) -> None:
    pixels = torch.rand(8, 3, 8, 8)
    for student in (teacher, make(layers_removed=9).eval()):
        terms = FeatureTerms(student, teacher, recipe(**ALL_TERMS), image_size=(8, 8))
        taught = terms.ask_teacher(pixels, logits=True)
        loss = terms.loss(terms.ask_student(pixels)[0], taught, torch.zeros(8, dtype=torch.int64))
        assert (loss.item() < 1e-4) == (student is teacher)


@pytest.mark.parametrize("term", ["attention_weight", "hint_weight", "teacher_tail_weight"])
def test_each_term_comes_down_when_it_is_all_that_is_trained(
    term: str, teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    used = recipe(epochs=1, alpha=0.0, overlay_probability=0.0, **{term: 1.0})
    student = make(width=0.5, layers_removed=11)
    terms = FeatureTerms(student, teacher, used, image_size=(8, 8))
    pixels = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    losses = descend(student, terms, pixels, rate=3e-3, logits=True)
    assert losses[-1] < 0.7 * losses[0], losses
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_training_with_every_term_resumes_bit_for_bit_adapter_included(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    used = recipe(epochs=2, learning_rate=0.02, attribution_weight=0.5, **ALL_TERMS)

    def start() -> Training:
        student = make(width=0.5, layers_removed=11)
        return Training(student, data, used, device=CPU, teaching=None, teacher=teacher)

    before = {name: value.clone() for name, value in teacher.body.state_dict().items()}
    straight = start()
    metrics = list(straight.epochs())
    first = start()
    assert first.features is not None
    fresh = first.features.adapter.weight.clone()
    next(first.epochs())
    state = through_a_file(first.state_dict())
    assert not torch.equal(state["adapter"]["weight"], fresh), "the adapter is trained"
    second = start()
    second.load_state_dict(state)
    (rest,) = second.epochs()
    assert rest.train_loss == metrics[1].train_loss
    for mine, others in zip(second.state_dict()["body"].values(), straight.state_dict()["body"].values(), strict=True):
        assert torch.equal(mine, others)
    assert torch.equal(second.state_dict()["adapter"]["weight"], straight.state_dict()["adapter"]["weight"])
    # What is kept and counted is the student alone, and the teacher is as it was.
    assert first.network.body.state_dict().keys() == make(layers_removed=11).body.state_dict().keys()
    assert count_parameters(first.network) == count_parameters(make(width=0.5, layers_removed=11))
    assert all(torch.equal(value, before[name]) for name, value in teacher.body.state_dict().items())


def test_logits_from_a_table_or_from_the_run_for_features_give_the_same_training(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    losses = []
    for teaching in (None, OnlineLogits(teacher)):
        used = recipe(epochs=1, attention_weight=1.0)
        training = Training(make(layers_removed=11), data, used, device=CPU, teaching=teaching, teacher=teacher)
        losses.append(next(training.epochs()).train_loss)
    assert losses[0] == losses[1]


def test_what_is_missing_is_named(teacher: Network, data: TrainingData, recipe: MakeRecipe) -> None:
    student = make(layers_removed=11)
    with pytest.raises(ValueError, match=r"features .*needs the teacher.* 0"):
        Training(student, data, recipe(hint_weight=1.0), device=CPU, teaching=None)
    other = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)), [0.5] * 3, [0.3] * 3)
    with pytest.raises(UsageError, match=r"teacher's Sequential .*hint_weight"):
        Training(student, data, recipe(hint_weight=1.0), device=CPU, teaching=None, teacher=other)
    with pytest.raises(ValueError, match="blocks of Sequential "):
        Training(student, data, recipe(teacher_tail_weight=1.0), device=CPU, teaching=None, teacher=other)


def test_in_evaluation_the_student_answers_without_its_teacher(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    training = Training(
        make(layers_removed=11), data, recipe(epochs=1, **ALL_TERMS), device=CPU, teaching=None, teacher=teacher
    )
    metrics = next(training.epochs())
    logits = forward_in_batches(training.network, data.validation_images, batch_size=21)
    assert metrics.validation_accuracy == (logits.argmax(1) == data.validation_labels).float().mean().item()
