"""Powerpropagation by its equations, and what is pruned: how much, what, when, and that it stays so."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.optimization import decay_groups
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.reparameterization import AS_THEY_ARE, merged, reparameterize, weighted_layers
from igkd_hpo.distillation.sparsity import Power, Pruned, prune, undecayed
from igkd_hpo.distillation.training import Training
from tests.distillation.test_training import through_a_file

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]
MakeNetwork = Callable[[], Network]
NUMBERS = st.lists(st.floats(-8, 8), min_size=2, max_size=12)
ALPHAS = st.floats(1, 5)


@given(NUMBERS, ALPHAS)
def test_the_gradient_is_alpha_theta_to_the_alpha_less_one_times_that_of_the_weight(
    numbers: list[float], alpha: float
) -> None:
    theta = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    weight = Power(alpha)(theta)
    assert torch.allclose(weight, theta * theta.abs() ** (alpha - 1))
    of_weight = torch.linspace(-1, 2, len(numbers), dtype=torch.float64)
    weight.backward(of_weight)
    assert theta.grad is not None
    expected = torch.where(theta == 0, 0, alpha * theta.abs() ** (alpha - 1) * of_weight)  # alpha 1 is never built
    assert torch.allclose(torch.where(theta == 0, 0, theta.grad), expected)
    assert bool(theta.grad.isfinite().all())


def test_zero_stays_zero() -> None:
    theta = torch.zeros(3, requires_grad=True)
    Power(1.5)(theta).sum().backward()
    assert theta.grad is not None
    assert theta.grad.tolist() == [0, 0, 0]


@given(NUMBERS, ALPHAS)
def test_theta_of_a_weight_gives_that_weight(numbers: list[float], alpha: float) -> None:
    weight = torch.tensor(numbers, dtype=torch.float64)
    assert torch.allclose(Power(alpha)(Power(alpha).right_inverse(weight)), weight)


def prunable(*weights: Tensor) -> nn.Sequential:
    layers = nn.Sequential(*(nn.Linear(weight.shape[1], weight.shape[0]) for weight in weights))
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(weight)
    reparameterize(layers, {**AS_THEY_ARE, "architecture": "tiny", "sparsity": 0.5})
    return layers


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0, 0.99), st.integers(0, 9))
def test_exactly_that_share_of_all_layers_together_is_zero_and_it_is_the_smallest(
    sizes: list[int], sparsity: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    network = prunable(*(torch.randint(-3, 4, (2, size), generator=generator).float() for size in sizes))
    before = torch.cat([layer.weight.abs().flatten() for layer in network])
    prune(network, sparsity)
    kept = torch.cat([layer.parametrizations.weight[0].kept.flatten() for layer in network])
    after = torch.cat([layer.weight.abs().flatten() for layer in network])
    assert int((~kept).sum()) == round(sparsity * len(before))
    assert torch.equal(after, before * kept)
    if 0 < int(kept.sum()) < len(kept):
        assert before[~kept].max() <= before[kept].min()


def test_what_was_pruned_does_not_learn_any_more() -> None:
    network = prunable(torch.tensor([[1.0, -2.0], [0.1, 3.0]]), torch.tensor([[0.2, 5.0]]))
    prune(network, 0.4)
    sum(layer.weight.sum() for layer in network).backward()
    first, second = (layer.parametrizations.weight.original.grad for layer in network)
    assert (first == 0).tolist() == [[False, False], [True, False]]
    assert (second == 0).tolist() == [[True, False]]


def prepared(make: MakeNetwork, **values: float | str) -> Network:
    network = make()
    reparameterize(network.body, {**AS_THEY_ARE, "architecture": "tiny", **values})
    return network


def share_of_zeros(network: Network) -> float:
    weights = torch.cat([layer.weight.flatten() for layer in weighted_layers(merged(network.body))])
    return float((weights == 0).float().mean())


@pytest.mark.parametrize("epochs", [1, 3])
def test_weights_are_pruned_at_half_of_the_steps_and_validation_is_of_what_is_shipped(
    epochs: int, data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    values: dict[str, float | str] = {"powerprop_alpha": 2.0, "sparsity": 0.75}
    used = recipe(epochs=epochs, alpha=0.0, learning_rate=0.05, **values)
    network = prepared(tiny_network, **values)
    zeros: list[float] = []
    network.register_forward_pre_hook(lambda *_: zeros.append(share_of_zeros(network)) if network.training else None)
    training = Training(network, data, used, device=CPU, teaching=None)
    *_, last = training.epochs()
    steps = 3 * epochs
    assert [share > 0 for share in zeros] == [step >= steps // 2 for step in range(steps)]
    assert set(zeros[steps // 2 :]) == {180 / 240}
    shipped = Network(merged(network.body), network.mean, network.std).eval()
    logits = predict(shipped, data.validation_images, device=CPU)
    assert accuracy(logits, data.validation_labels) == pytest.approx(last.validation_accuracy)
    assert share_of_zeros(shipped) == 180 / 240


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_training_resumes_before_and_after_its_pruning_bit_for_bit(
    stop: int, data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    values: dict[str, float | str] = {"overparameterize": "branches", "powerprop_alpha": 1.5, "sparsity": 0.5}
    used = recipe(alpha=0.0, learning_rate=0.05, ema_decay=0.5, **values)

    def make() -> Training:
        return Training(prepared(tiny_network, **values), data, used, device=CPU, teaching=None)

    straight, first, second = make(), make(), make()
    list(straight.epochs())
    running = first.epochs()
    for _ in range(stop):
        next(running)
    second.load_state_dict(through_a_file(first.state_dict()))
    list(second.epochs())
    for ours, expected in ((second.network, straight.network), (second._trained, straight._trained)):
        assert all(map(torch.equal, ours.state_dict().values(), expected.state_dict().values()))
        assert share_of_zeros(ours) == 0.5


def test_what_is_raised_to_a_power_is_not_decayed(tiny_network: MakeNetwork) -> None:
    network = prepared(tiny_network, powerprop_alpha=2.0)
    spared = {id(part) for part in undecayed(network)}
    assert len(spared) == 2
    for decay, n_decayed in (("all", 3), ("weights", 0)):  # batch normalisation's two, and a bias
        decayed, others = decay_groups(network, decay)
        assert isinstance(decayed, dict)
        assert isinstance(others, dict)
        assert len(decayed["params"]) == n_decayed
        assert others["weight_decay"] == 0
        assert spared <= {id(part) for part in others["params"]}
    assert not isinstance(decay_groups(tiny_network(), "all"), list)  # one group, as ever


def test_a_network_without_weights_that_can_be_pruned_is_refused(
    data: TrainingData, recipe: MakeRecipe, tiny_network: MakeNetwork
) -> None:
    with pytest.raises(ValueError, match=r"0\.5"):
        Training(tiny_network(), data, recipe(alpha=0.0, sparsity=0.5), device=CPU, teaching=None)
    assert not [part for part in tiny_network().modules() if isinstance(part, Pruned)]
