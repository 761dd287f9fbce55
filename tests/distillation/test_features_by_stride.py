"""The terms on features between networks of different families: values by hand, gradients, going on, no hook left."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.features import FeatureTerms, check_comparable
from igkd_hpo.distillation.models import Network, Resized, count_parameters
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.teaching import TEACHER_BATCH, OnlineLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.errors import UsageError
from tests.distillation.conftest import through_a_file

CPU = torch.device("cpu")
SIZE = (64, 64)
MakeRecipe = Callable[..., Recipe]
TERMS = {"attention_weight": 4.0, "attention_depths": "stages", "hint_weight": 0.5}


def network(body: nn.Module) -> Network:
    return Network(body, [0.5] * 3, [0.3] * 3).to(memory_format=torch.channels_last)


def lcnet() -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return network(timm.create_model("lcnet_050", num_classes=3))


def shufflenet() -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return network(torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=3))


@pytest.fixture(scope="module")
def teacher() -> Network:
    """A frozen ResNet-18 with batch statistics of its own."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        made = network(torchvision.models.resnet18(weights=None, num_classes=3))
        with torch.no_grad():
            made(torch.rand(16, 3, *SIZE))
    return made.eval().requires_grad_(False)


@pytest.fixture
def data() -> TrainingData:
    """Sixteen 64x64 images: a step of 8 is half an epoch."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (16, 3, *SIZE), generator=generator, dtype=torch.uint8)
    labels, maps = torch.arange(16) % 3, torch.rand(16, *SIZE, generator=generator).half()
    return TrainingData(
        images=images, labels=labels, maps=maps, validation_images=images[:4], validation_labels=labels[:4]
    )


def pixels_of(count: int) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def n_hooks(some: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in some.modules())


def test_the_losses_of_a_batch_by_hand(teacher: Network, recipe: MakeRecipe) -> None:
    student, pixels = lcnet().eval(), pixels_of(4)
    terms = FeatureTerms(student, teacher, recipe(**TERMS), image_size=SIZE)
    assert terms.places == (2, 4, 8, 16, 32)
    assert isinstance(terms.adapter, nn.Conv2d)
    assert terms.adapter.weight.shape == (512, 256, 1, 1)
    taught = terms.ask_teacher(pixels, logits=False)
    loss = terms.loss(terms.ask_student(pixels)[0], taught, torch.zeros(4, dtype=torch.int64))

    # The same without hooks: each network's stages one after the other.
    x, body = (pixels - teacher.mean) / teacher.std, teacher.body
    wanted = [body.relu(body.bn1(body.conv1(x)))]
    wanted.append(body.layer1(body.maxpool(wanted[-1])))
    for layer in (body.layer2, body.layer3, body.layer4):
        wanted.append(layer(wanted[-1]))
    x, body = (pixels - student.mean) / student.std, student.body
    given, x = [], body.bn1(body.conv_stem(x))
    for number, block in enumerate(body.blocks):
        x = block(x)
        if number in (0, 1, 2, 4, 5):
            given.append(x)
    attention: list[Tensor] = []
    for mine, others in zip(given, wanted, strict=True):
        maps = [some.double().square().mean(1).flatten(1) for some in (mine, others)]
        unit = [each / each.norm(dim=1, keepdim=True) for each in maps]
        attention.append((unit[0] - unit[1]).square().sum(1).mean().float())
    last = terms.adapter(given[-1])
    hint = (last - wanted[-1]).square().mean() / wanted[-1].square().mean()
    torch.testing.assert_close(loss, 4 * torch.stack(attention).mean() + 0.5 * hint)


def test_a_teacher_that_sees_larger_images_meets_the_student_at_the_students_size(
    teacher: Network, recipe: MakeRecipe
) -> None:
    student, pixels = lcnet().eval(), pixels_of(4)
    larger = Network(Resized(teacher.body, 128), [0.5] * 3, [0.3] * 3).eval()
    terms = FeatureTerms(student, larger, recipe(hint_weight=1.0), image_size=SIZE)
    taught = terms.ask_teacher(pixels, logits=False)
    assert taught.features[32].shape == (4, 512, 4, 4)
    given = terms.ask_student(pixels)[0]
    loss = terms.loss(given, taught, torch.zeros(4, dtype=torch.int64))
    pooled = F.avg_pool2d(taught.features[32], 2)
    expected = (terms.adapter(given[32]) - pooled).square().mean() / pooled.square().mean()
    torch.testing.assert_close(loss, expected)


def test_the_built_in_network_is_compared_by_stride_with_another_and_by_block_with_itself(
    teacher: Network, recipe: MakeRecipe
) -> None:
    built_in = network(mobilenet_v2(num_classes=3, width=0.25, layers_removed=5))
    used = recipe(**TERMS)
    assert FeatureTerms(built_in, teacher, used, image_size=SIZE).places == (2, 4)
    assert FeatureTerms(built_in, built_in, used, image_size=SIZE).places == (3, 6, 13)
    resized = Network(Resized(built_in.body, 96), [0.5] * 3, [0.3] * 3)
    assert FeatureTerms(built_in, resized, used, image_size=SIZE).places == (2, 4)
    imagenet = network(torchvision.models.mobilenet_v2(weights=None, num_classes=3))
    assert FeatureTerms(built_in, imagenet, used, image_size=SIZE).places == (2, 4)
    with pytest.raises(UsageError, match=r"student's MobileNetV2 gives no maps"):
        check_comparable(network(mobilenet_v2(num_classes=3, width=0.25, layers_removed=17)), teacher, SIZE)


def test_gradients_reach_the_student_up_to_its_cut_and_not_the_teacher(teacher: Network, recipe: MakeRecipe) -> None:
    student, pixels = lcnet().train(), pixels_of(4)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    terms = FeatureTerms(student, teacher, recipe(**TERMS), image_size=SIZE)
    taught = terms.ask_teacher(pixels, logits=False)
    terms.loss(terms.ask_student(pixels)[0], taught, torch.zeros(4, dtype=torch.int64)).backward()
    learning = {name for name, weight in student.body.named_parameters() if weight.grad is not None}
    behind = {
        name for name, _ in student.body.named_parameters() if name.startswith(("conv_head", "norm_head", "class"))
    }
    assert learning == {name for name, _ in student.body.named_parameters()} - behind
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("count", [3, 70])
def test_one_run_of_the_teacher_gives_the_logits_that_it_gives_alone(
    count: int, teacher: Network, recipe: MakeRecipe
) -> None:
    terms = FeatureTerms(lcnet(), teacher, recipe(**TERMS), image_size=SIZE)
    pixels, runs = pixels_of(count), []
    handle = teacher.body.conv1.register_forward_hook(lambda *_: runs.append(1))
    features, _, logits = terms.ask_teacher(pixels, logits=True)
    handle.remove()
    assert len(runs) == -(-count // TEACHER_BATCH)
    assert [feature.shape[0] for feature in features.values()] == [count] * 5
    assert logits is not None
    assert torch.equal(logits, OnlineLogits(teacher).logits(torch.arange(0), None, pixels))  # type: ignore[arg-type]
    assert terms.ask_teacher(pixels, logits=False).logits is None


@pytest.mark.parametrize(
    ("make_student", "more"),
    [(lcnet, {"precision": "bfloat16"}), (shufflenet, {"attribution_weight": 0.5, "attention_depths": "middle"})],
)
def test_two_steps_an_epoch_go_on_bit_for_bit(
    make_student: Callable[[], Network],
    more: dict[str, Any],
    teacher: Network,
    data: TrainingData,
    recipe: MakeRecipe,
) -> None:
    used = recipe(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.02, "ema_decay": 0.5, **TERMS, **more})

    def start() -> Training:
        return Training(make_student(), data, used, device=CPU, teaching=None, teacher=teacher)

    straight = start()
    metrics = list(straight.epochs())
    first = start()
    next(first.epochs())
    state = through_a_file(first.state_dict())
    assert state["body"].keys() == make_student().body.state_dict().keys()
    assert count_parameters(first.network) == count_parameters(make_student())
    second = start()
    second.load_state_dict(state)
    (rest,) = second.epochs()
    assert rest.train_loss == metrics[1].train_loss
    for name in ("body", "adapter"):
        mine, others = second.state_dict()[name], straight.state_dict()[name]
        assert all(torch.equal(mine[key], others[key]) for key in others)


def test_no_hook_is_left_in_a_network_its_average_or_the_teacher(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    student = lcnet()
    assert n_hooks(student) == n_hooks(teacher) == 0
    used = recipe(epochs=1, batch_size=8, ema_decay=0.5, **TERMS)
    training = Training(student, data, used, device=CPU, teaching=None, teacher=teacher)
    next(training.epochs())
    assert training.network is not student, "the average is another network"
    assert n_hooks(student) == n_hooks(training.network) == n_hooks(teacher) == 0

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    terms = FeatureTerms(student, teacher, used, image_size=SIZE)
    student.body.classifier = Fails()
    with pytest.raises(RuntimeError, match="no"):
        terms.ask_student(pixels_of(2))
    assert n_hooks(student) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_compares_features_as_single_kernels_do(
    teacher: Network, data: TrainingData, recipe: MakeRecipe
) -> None:
    def losses(compiled: str) -> list[float]:
        used = recipe(epochs=3, batch_size=8, learning_rate=0.01, precision="bfloat16", compile=compiled, **TERMS)
        training = Training(
            shufflenet(), data, used, device=torch.device("cuda"), teaching=None, teacher=copy.deepcopy(teacher)
        )
        assert training.compile == compiled
        return [metrics.train_loss for metrics in training.epochs()]

    assert losses("cuda_graph") == pytest.approx(losses("none"), rel=2e-2)
