"""Students that learn something else than their weights begin, answer and are shipped as if they did not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.distillation.averaging import RunningAverage
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.distillation.reparameterization import (
    AS_THEY_ARE,
    is_reparameterized,
    learned_in_place_of,
    merged,
    reparameterize,
    weighted_layers,
)
from igkd_hpo.distillation.sparsity import prune
from igkd_hpo.distillation.taps import ByStride
from igkd_hpo.errors import UsageError
from igkd_hpo.trial.student import deployed

MPO = {**AS_THEY_ARE, "overparameterize": "mpo", "architecture": "tiny"}
BRANCHES = {**MPO, "overparameterize": "branches"}
ALL = {**MPO, "powerprop_alpha": 1.5, "sparsity": 0.6}
STUDENTS = {
    "mobilenet_v2": {"width": 0.5, "layers_removed": 11},
    "torchvision/shufflenet_v2_x0_5": {"stages_removed": 1},
    "timm/mobileone_s0": {"stages_removed": 3},  # which merges branches of its own
    "timm/test_vit": {},  # of linear layers
}


def build(name: str) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        size = (160, 160) if "vit" in name else (32, 32)
        request = Request(name=name, num_classes=10, image_size=size)
        return find_architecture(name).build(request, **STUDENTS[name])


def some_images(name: str) -> Tensor:
    size = 160 if "vit" in name else 32
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def largest_difference(one: Tensor, other: Tensor) -> float:
    return float(((one - other).abs().max() / other.abs().max()).detach())


def train_a_little(body: nn.Module, images: Tensor) -> None:
    optimizer = torch.optim.SGD(body.parameters(), 0.05)
    for _ in range(2):
        loss = nn.functional.cross_entropy(body.train()(images), torch.arange(len(images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "values"), [
    ("mobilenet_v2", MPO), ("mobilenet_v2", BRANCHES), ("mobilenet_v2", ALL),
    ("torchvision/shufflenet_v2_x0_5", MPO), ("timm/mobileone_s0", BRANCHES), ("timm/test_vit", MPO),
])  # fmt: skip
def test_they_begin_as_the_plain_student_and_are_shipped_as_the_trained_one(
    name: str, values: dict[str, float | str]
) -> None:
    body, plain, images = build(name), build(name), some_images(name)
    reparameterize(body, values)
    assert count_parameters(body) > count_parameters(plain)
    assert largest_difference(body.eval()(images), plain.eval()(images)) < 1e-5
    train_a_little(body, images)
    if values is ALL:
        prune(body, 0.6)
    trained = body.eval()(images)
    assert largest_difference(trained, plain(images)) > 1e-3  # it has learned
    shipped, plain_shipped = deployed(body, name), deployed(plain, name)
    assert largest_difference(shipped(images), trained) < 1e-5
    shapes = [(key, tensor.shape) for key, tensor in shipped.state_dict().items()]
    assert shapes == [(key, tensor.shape) for key, tensor in plain_shipped.state_dict().items()]
    assert [type(part) for part in shipped.modules()] == [type(part) for part in plain_shipped.modules()]
    assert is_reparameterized(body)  # what was merged is a copy
    assert torch.equal(body(images), trained)


def test_a_student_that_learns_its_weights_is_left_as_it_is() -> None:
    body, plain = build("mobilenet_v2"), build("mobilenet_v2")
    reparameterize(body, {**AS_THEY_ARE, "architecture": "mobilenet_v2"})
    assert not is_reparameterized(body)
    assert merged(body) is body
    assert list(body.state_dict()) == list(plain.state_dict())
    assert all(map(torch.equal, body.state_dict().values(), plain.state_dict().values()))


def test_the_running_average_is_of_what_is_learned_and_merges_alone() -> None:
    body = build("mobilenet_v2")
    reparameterize(body, ALL)
    network = Network(body, [0.5] * 3, [0.3] * 3)
    average = RunningAverage(network, 0.5)
    images = some_images("mobilenet_v2")
    train_a_little(body, images)
    average.update()
    shipped = merged(average.network.body.eval())
    assert largest_difference(shipped(images), average.network.body(images)) < 1e-5
    assert largest_difference(body.eval()(images), shipped(images)) < 1e-5  # the first step is taken as it is


class Odd(nn.Module):
    """Layers of which some must be left alone: a shared weight, a frozen one, one that is a parametrization already."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.shared, self.frozen = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.sharing = nn.Linear(8, 8)
        self.sharing.weight = self.shared.weight
        self.frozen.weight.requires_grad_(False)
        self.normed = parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.normed(self.frozen(self.sharing(self.shared(self.one(x)))))


def test_weights_that_are_not_a_layers_own_are_left_alone() -> None:
    body, x = Odd(), torch.rand(2, 8)
    answer = body(x)
    assert weighted_layers(body) == [body.one]
    reparameterize(body, ALL)
    assert [name for name, part in body.named_children() if parametrize.is_parametrized(part)] == ["one", "normed"]
    assert largest_difference(body(x), answer) < 1e-5
    plain = merged(body)
    assert [name for name, part in plain.named_children() if parametrize.is_parametrized(part)] == ["normed"]
    assert largest_difference(plain(x), answer) < 1e-5
    assert plain.sharing.weight is plain.shared.weight


@pytest.mark.parametrize(
    ("body", "values", "named"),
    [
        (nn.Linear(7, 10), MPO, "mpo"),
        (nn.Conv2d(8, 8, 1), BRANCHES, "branches"),
        (nn.Conv1d(8, 8, 3), {**AS_THEY_ARE, "powerprop_alpha": 2.0}, "powerprop_alpha is 2.0"),
        (nn.BatchNorm2d(8), {**AS_THEY_ARE, "sparsity": 0.5}, "sparsity is 0.5"),
    ],
)
def test_a_network_on_which_nothing_acts_is_refused(
    body: nn.Module, values: dict[str, float | str], named: str
) -> None:
    with pytest.raises(UsageError, match=named) as told:
        reparameterize(nn.Sequential(body), {**values, "architecture": "mine:net"})
    assert "mine:net" in str(told.value)


def test_names_of_pretrained_weights_are_those_of_what_is_learned_in_their_place() -> None:
    body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Linear(8, 8))
    taken = frozenset({"0.weight", "1.weight", "2.weight", "2.bias"})
    assert learned_in_place_of(body, taken) == taken
    mark = "parametrizations.weight.original"
    reparameterize(body, MPO)
    assert learned_in_place_of(body, taken) == {f"0.{mark}{n}" for n in range(3)} | taken - {"0.weight"}
    assert not any(name.startswith("3.") for name in learned_in_place_of(body, taken))


def test_a_kernel_is_not_taken_for_a_map() -> None:
    """Of 3x3, as maps of stride 32 are of images of 96 pixels, in a network that is made for these alone."""
    layers = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 24 * 24, 10)
    network = Network(nn.Sequential(*layers), [0.5] * 3, [0.3] * 3)
    plain = ByStride(network, (96, 96)).taps
    assert list(plain) == [4]
    reparameterize(network.body, BRANCHES)
    found = ByStride(network, (96, 96))
    assert found.taps == plain
    features, _ = found.run(torch.rand(1, 3, 96, 96), [4])
    assert features[4].shape[2:] == (24, 24)
