import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import TrainingData, draw_plan, make_batch
from igkd_hpo.distillation.evaluation import accuracy, forward_in_batches, judge, predict
from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
from igkd_hpo.distillation.metrics import METRICS, Metric
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.reparameterization import AS_THEY_ARE, reparameterize
from igkd_hpo.distillation.teaching import TEACHER_BATCH, CachedLogits, OnlineLogits
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.distillation.views import ShiftedCrops
from igkd_hpo.errors import UsageError
from tests.distillation.conftest import through_a_file

CPU = torch.device("cpu")
VIEWS = ShiftedCrops(padding=1, mirrored=True)
MakeRecipe = Callable[..., Recipe]
MakeNetwork = Callable[[], Network]
PRUNED = {"overparameterize": "branches", "powerprop_alpha": 1.5, "sparsity": 0.5}


@pytest.fixture
def teaching() -> CachedLogits:
    table = torch.randn(70, VIEWS.count, 3, generator=torch.Generator().manual_seed(2)).half()
    return CachedLogits(table, VIEWS.count)


def weights(training: Training) -> Tensor:
    return torch.cat([value.flatten().double() for value in training.network.body.state_dict().values()])


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "one_cycle", "precision": "float32"},
        {"optimizer": "adam", "schedule": "constant", "channels_last": False},
        {"optimizer": "adamw", "schedule": "cosine", "precision": "bfloat16"},
        {"optimizer": "sgd", "schedule": "cosine", "precision": "float16"},
        {
            "optimizer": "adam",
            "ema_decay": 0.8,
            "label_smoothing": 0.1,
            "cutout": 3,
            "flip": "alternating",
            "decay": "weights",
            "overlay_mode": "background",
        },
    ],
    ids=lambda changes: changes["optimizer"] + "-" + changes.get("precision", "ema" if len(changes) > 4 else "float32"),
)
def test_two_epochs_and_two_more_are_four_epochs_bit_for_bit(
    changes: dict[str, Any],
    data: TrainingData,
    recipe: MakeRecipe,
    tiny_network: MakeNetwork,
    teaching: CachedLogits,
) -> None:
    used = recipe(**changes, learning_rate=0.02)
    straight = Training(tiny_network(), data, used, device=CPU, teaching=teaching)
    metrics = list(straight.epochs())

    first = Training(tiny_network(), data, used, device=CPU, teaching=teaching)
    running = first.epochs()
    next(running)
    next(running)
    state = through_a_file(first.state_dict())
    torch.manual_seed(99)  # another process has other global random numbers
    network = tiny_network()
    nn.init.zeros_(network.body[0].weight)
    second = Training(network, data, used, device=CPU, teaching=teaching)
    second.load_state_dict(state)
    assert second.completed_epochs == 2
    rest = list(second.epochs())

    assert [m.epoch for m in rest] == [3, 4]
    assert torch.equal(weights(second), weights(straight))
    assert all(map(torch.equal, second.state_dict()["body"].values(), straight.state_dict()["body"].values()))
    assert second.state_dict()["scaler"] == straight.state_dict()["scaler"]
    for resumed, expected in zip(rest, metrics[2:], strict=True):
        assert replace(resumed, seconds=0, images_per_second=0) == replace(expected, seconds=0, images_per_second=0)


def test_mobilenet_resumes_too(data: TrainingData, recipe: MakeRecipe, teaching: CachedLogits) -> None:
    def make() -> Training:
        torch.manual_seed(0)
        network = Network(mobilenet_v2(num_classes=3, width=0.25, layers_removed=9, dropout=0.2), [0.5] * 3, [0.3] * 3)
        return Training(network, data, recipe(epochs=2), device=CPU, teaching=teaching)

    straight = make()
    list(straight.epochs())
    first, second = make(), make()
    next(first.epochs())
    second.load_state_dict(through_a_file(first.state_dict()))
    list(second.epochs())
    assert torch.equal(weights(second), weights(straight))


@pytest.mark.parametrize("batch_size", [32, 100])
def test_cached_and_online_logits_give_the_same_training_bit_for_bit(
    batch_size: int, data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    torch.manual_seed(5)
    teacher = Network(mobilenet_v2(num_classes=3, width=0.25, layers_removed=9), [0.5] * 3, [0.3] * 3).eval()
    columns = []
    for number in range(VIEWS.count):
        seen = VIEWS.cut(data.images, torch.arange(70), torch.full((70,), number))
        columns.append(forward_in_batches(teacher, seen, batch_size=TEACHER_BATCH).half())
    cached = CachedLogits(torch.stack(columns, dim=1), VIEWS.count)
    results = []
    for teaching in (cached, OnlineLogits(teacher)):
        used = recipe(epochs=2, batch_size=batch_size, alpha=1.0)
        training = Training(tiny_network(), data, used, device=CPU, teaching=teaching)
        list(training.epochs())
        results.append(weights(training))
    assert torch.equal(*results)


def test_metrics_are_what_they_say(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork, teaching: CachedLogits
) -> None:
    training = Training(tiny_network(), data, recipe(), device=CPU, teaching=teaching)
    for epoch, metrics in enumerate(training.epochs(), start=1):
        logits = predict(training.network, data.validation_images, device=CPU)
        assert metrics.epoch == training.completed_epochs == epoch
        assert metrics.validation_accuracy == pytest.approx(accuracy(logits, data.validation_labels))
        expected_loss = nn.functional.cross_entropy(logits, data.validation_labels).item()
        assert metrics.validation_loss == pytest.approx(expected_loss, rel=1e-4)
        assert metrics.images_per_second == pytest.approx(96 / metrics.seconds)
    assert metrics.learning_rate < 1e-4  # one cycle ends near 0
    assert epoch == 4


def test_the_running_average_is_what_the_training_gives_and_validates(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    """Against an average kept by hand, buffers included; the training itself is as without it."""
    used = recipe(alpha=0.0, ema_decay=0.75, epochs=2)
    trained = tiny_network()
    training = Training(trained, data, used, device=CPU, teaching=None)
    history: list[dict[str, Tensor]] = []
    training.optimizer.register_step_post_hook(
        lambda *_: history.append({name: value.clone() for name, value in trained.body.state_dict().items()})
    )
    last = list(training.epochs())[-1]
    expected = history[0]
    for state in history[1:]:
        expected = {name: 0.75 * value + 0.25 * state[name] for name, value in expected.items()}
    kept = training.network.body.state_dict()
    assert training.network is not trained
    for name in ("0.weight", "1.running_mean", "1.running_var", "6.bias"):
        torch.testing.assert_close(kept[name], expected[name])
        assert not torch.equal(kept[name], trained.body.state_dict()[name])
    logits = predict(training.network, data.validation_images, device=CPU)
    assert last.validation_loss == pytest.approx(nn.functional.cross_entropy(logits, data.validation_labels).item())

    plain = Training(tiny_network(), data, replace(used, ema_decay=0.0), device=CPU, teaching=None)
    assert list(plain.epochs())[-1].train_loss == last.train_loss
    assert all(map(torch.equal, plain.network.body.state_dict().values(), trained.body.state_dict().values()))
    assert "averaged" not in plain.state_dict()


def test_label_smoothing_reaches_the_loss(data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork) -> None:
    losses = [
        next(Training(tiny_network(), data, used, device=CPU, teaching=None).epochs()).train_loss
        for used in (recipe(alpha=0.0, label_smoothing=share, learning_rate=1e-12) for share in (0.0, 0.9))
    ]
    assert losses[0] != losses[1]


def test_decay_and_overlay_mode_reach_the_training(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    used = recipe(alpha=0.0, decay="weights", overlay_mode="multiply", overlay_probability=1.0)
    training = Training(tiny_network(), data, used, device=CPU, teaching=None)
    assert [group["weight_decay"] for group in training.optimizer.param_groups] == [5e-4, 0.0]
    batch = make_batch(training.data, VIEWS, draw_plan(used, VIEWS, 70, epoch=1), 0, torch.contiguous_format)
    assert bool((batch.overlaid <= batch.pixels).all())  # which no other mode does


def test_train_loss_is_the_mean_over_steps(data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork) -> None:
    """With a learning rate of nearly 0, no batch statistics and no dropout, two halves' mean is that of the whole."""
    network = tiny_network()
    network.body[1] = network.body[5] = nn.Identity()
    used = recipe(alpha=0.0, overlay_probability=0.0, learning_rate=1e-12, schedule="constant", batch_size=35)
    used = replace(used, crop_padding=0, horizontal_flip=False)
    expected = nn.functional.cross_entropy(network(data.images.float() / 255), data.labels).item()
    training = Training(network, data, used, device=CPU, teaching=None)
    assert next(training.epochs()).train_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_the_student_computes_in_the_recipes_precision_and_the_loss_in_float32(
    precision: str, data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork, teaching: CachedLogits
) -> None:
    network = tiny_network()
    seen: set[tuple[bool, torch.dtype]] = set()
    network.register_forward_hook(lambda module, _, logits: seen.add((module.training, logits.dtype)))
    training = Training(network, data, recipe(precision=precision), device=CPU, teaching=teaching)
    assert bool(training.state_dict()["scaler"]) == (precision == "float16")
    next(training.epochs())
    assert seen == {(True, getattr(torch, precision)), (False, torch.float32)}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_validation_sees_statistics_of_its_own_epoch(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    """Statistics that start far off are gone after one epoch of any length; in long ones the momentum stays 0.1."""
    for batch_size in (70, 7, 2):
        network = tiny_network()
        norm = network.body[1]
        nn.init.constant_(norm.running_mean, 1000.0)
        used = recipe(alpha=0.0, overlay_probability=0.0, batch_size=batch_size, learning_rate=1e-12, epochs=1)
        list(Training(network, data, used, device=CPU, teaching=None).epochs())
        assert norm.running_mean.abs().max() < 20
        assert norm.momentum >= 0.1
    many = replace(data, images=data.images.repeat(2, 1, 1, 1), labels=data.labels.repeat(2), maps=None)
    network = tiny_network()
    Training(network, many, recipe(alpha=0.0, overlay_probability=0.0, batch_size=2), device=CPU, teaching=None)
    assert network.body[1].momentum == 0.1


def test_it_learns(data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork) -> None:
    used = recipe(epochs=40, alpha=0.0, overlay_probability=0.0, learning_rate=0.2)
    last = list(Training(tiny_network(), data, used, device=CPU, teaching=None).epochs())[-1]
    assert last.validation_accuracy > 0.9


def test_a_good_teachers_logits_alone_teach(data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork) -> None:
    table = nn.functional.one_hot(data.labels, 3)[:, None].expand(70, VIEWS.count, 3).half() * 6
    used = recipe(epochs=40, alpha=1.0, temperature=2.0, overlay_probability=0.1, learning_rate=0.1)
    shuffled_labels = replace(data, labels=data.labels.roll(1))
    training = Training(tiny_network(), shuffled_labels, used, device=CPU, teaching=CachedLogits(table, VIEWS.count))
    assert list(training.epochs())[-1].validation_accuracy > 0.9


def test_the_networks_weights_are_channels_last_where_asked(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    for asked in (True, False):
        network = tiny_network()
        used = recipe(alpha=0.0, channels_last=asked, epochs=1)
        list(Training(network, data, used, device=CPU, teaching=None).epochs())
        assert network.body[0].weight.is_contiguous(memory_format=torch.channels_last) == asked


def test_the_global_random_numbers_are_left_alone(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    training = Training(tiny_network(), data, recipe(alpha=0.0), device=CPU, teaching=None)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    next(training.epochs())
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_is_told_with_its_epoch(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    used = recipe(alpha=0.0, learning_rate=1e30, schedule="constant")
    training = Training(tiny_network(), data, used, device=CPU, teaching=None)
    with pytest.raises(NonFiniteLoss, match="epoch 1 ") as caught:
        list(training.epochs())
    assert caught.value.epoch == 1
    assert training.completed_epochs == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (({"batch_size": 1}, {}), "batch_size is 1 .* 70 training images"),
        (({}, {"images": slice(1), "labels": slice(1), "maps": slice(1)}), "there are 1 training images"),
        (({}, {"labels": slice(69)}), " 69 labels .* 70 training images"),
        (({}, {"maps": slice(69)}), " 69 maps .* 70 training images"),
        (({}, {"maps": None}), r"overlay_probability is 0\.5, .*attribution maps"),
        (({"alpha": 0.5}, {}), r"alpha is 0\.5, .* logits"),
        (({"epochs": 0}, {}), "epochs is 0"),
        (({"cutout": 9}, {}), r"cutout is 9 .*\(8\)"),
        (({}, {"validation_images": slice(0)}), "there are no validation images"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    changes: tuple[dict[str, Any], dict[str, slice | None]],
    message: str,
    data: TrainingData,
    recipe: MakeRecipe,
    tiny_network: MakeNetwork,
) -> None:
    recipe_changes, data_changes = changes
    cut = {name: None if part is None else getattr(data, name)[part] for name, part in data_changes.items()}
    used = recipe(**({"alpha": 0.0} | recipe_changes))
    with pytest.raises(ValueError, match=message):
        Training(tiny_network(), replace(data, **cut), used, device=CPU, teaching=None)


def test_precision_on_a_cpu() -> None:
    assert resolve_precision("auto", CPU) == resolve_precision("float32", CPU) == "float32"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
    with pytest.raises(UsageError, match=r"precision float16 .* cpu"):
        resolve_precision("float16", CPU)


def test_where_a_step_can_be_a_graph() -> None:
    cuda = torch.device("cuda")
    assert resolve_compile("auto", CPU, "float32") == resolve_compile("auto", cuda, "float16") == "none"
    assert resolve_compile("none", cuda, "bfloat16") == "none"
    assert resolve_compile("auto", cuda, "bfloat16") == "auto"
    assert resolve_compile("cuda_graph", cuda, "float32") == "cuda_graph"
    with pytest.raises(UsageError, match=r"compile cuda_graph .* cpu .*float32"):
        resolve_compile("cuda_graph", CPU, "float32")
    with pytest.raises(UsageError, match="with float16"):
        resolve_compile("cuda_graph", cuda, "float16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("precision", "compiled", "ema_decay", "learned"),
    [
        ("float32", "none", 0.0, AS_THEY_ARE),
        ("float32", "cuda_graph", 0.5, AS_THEY_ARE),
        ("bfloat16", "none", 0.5, AS_THEY_ARE),
        ("bfloat16", "auto", 0.0, AS_THEY_ARE),
        ("float16", "none", 0.0, AS_THEY_ARE),
        ("float32", "none", 0.5, PRUNED),
        ("float32", "cuda_graph", 0.0, PRUNED),
    ],
)
def test_steps_on_cuda_never_wait_for_the_device_and_learn_as_on_a_cpu(
    precision: str,
    compiled: str,
    ema_decay: float,
    learned: Mapping[str, Any],
    data: TrainingData,
    recipe: MakeRecipe,
    tiny_network: MakeNetwork,
    teaching: CachedLogits,
) -> None:
    class Watched(Training):
        def _train_step(self, *arguments: Any) -> Tensor:
            torch.cuda.set_sync_debug_mode("error")
            try:
                return super()._train_step(*arguments)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    cuda = torch.device("cuda")
    used = recipe(precision=precision, learning_rate=0.02, compile=compiled, ema_decay=ema_decay, **learned)
    network = tiny_network()
    network.body[5] = nn.Identity()  # dropout draws other numbers on another kind of device
    reference = tiny_network()
    reference.body[5] = nn.Identity()
    for each in (network, reference):
        reparameterize(each.body, {**learned, "architecture": "tiny"})
    there = CachedLogits(teaching.table.to(cuda), VIEWS.count)
    losses = [m.train_loss for m in Watched(network, data, used, device=cuda, teaching=there).epochs()]
    plain = Training(reference, data, replace(used, precision="float32", compile="none"), device=CPU, teaching=teaching)
    expected = [m.train_loss for m in plain.epochs()]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize(("batch_size", "batches"), [(2, 2), (300, 1)])
def test_large_images_are_validated_few_at_a_time_but_no_fewer_than_in_a_step(
    batch_size: int, batches: int, tiny_network: MakeNetwork, recipe: MakeRecipe
) -> None:
    images = torch.zeros(130, 3, 64, 64, dtype=torch.uint8)  # 512 of 32x32 have as many pixels as 128 of 64x64
    labels = torch.arange(130) % 3
    data = TrainingData(
        images=images[:4], labels=labels[:4], maps=None, validation_images=images, validation_labels=labels
    )
    settings = recipe(batch_size=batch_size, alpha=0.0, overlay_probability=0.0, epochs=1, crop_padding=0)
    training = Training(tiny_network(), data, settings, device=CPU, teaching=None)
    next(training.epochs())
    assert training.steps_done == math.ceil(4 / batch_size) + batches


@pytest.mark.parametrize("metric", METRICS)
def test_an_epoch_reports_the_metric_and_the_end_tells_of_classes(
    metric: Metric, data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    rare = torch.cat([torch.arange(21)[data.validation_labels != 2], torch.tensor([2])])  # one image of class 2
    labels = data.labels[rare].clone()
    labels[:4] = 1  # two of them are wrong, whatever is learned
    data = replace(data, validation_images=data.images[rare], validation_labels=labels)
    used = recipe(alpha=0.0, overlay_probability=0.0, epochs=2)
    training = Training(tiny_network(), data, used, device=CPU, teaching=None, metric=metric)
    *_, last = training.epochs()
    logits = forward_in_batches(training.network, data.validation_images, batch_size=15)
    assert last.validation_accuracy == pytest.approx(judge(logits, data.validation_labels, metric), abs=1e-6)
    counted = training.tally()
    assert counted.images == torch.bincount(labels).tolist()
    assert counted.right == [int(((logits.argmax(1) == k) & (data.validation_labels == k)).sum()) for k in range(3)]


def test_balanced_weights_change_a_training_only_where_classes_are_uneven(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    def losses(rows: Tensor, weights: str) -> list[float]:
        some = replace(data, images=data.images[rows], labels=data.labels[rows], maps=None)
        used = recipe(alpha=0.0, overlay_probability=0.0, class_weights=weights, label_smoothing=0.1)
        training = Training(tiny_network(), some, used, device=CPU, teaching=None)
        return [metrics.train_loss for metrics in training.epochs()]

    even, uneven = torch.arange(69), torch.arange(70)[data.labels != 2]
    uneven = torch.cat([uneven, torch.tensor([2, 5])])
    assert losses(even, "balanced") == pytest.approx(losses(even, "none"), rel=1e-4)
    assert losses(uneven, "balanced") != pytest.approx(losses(uneven, "none"), rel=1e-2)
