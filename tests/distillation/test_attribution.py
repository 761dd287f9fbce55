import pytest
import torch
from captum.attr import IntegratedGradients
from scipy.stats import spearmanr
from torch import nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.attribution import integrated_gradients, rank_correlation
from igkd_hpo.distillation.models import Network

BASELINE = torch.tensor([0.4, 0.5, 0.6])


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([2, 0, 4, 1])


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(mobilenet_v2(num_classes=5, width=0.25, layers_removed=9), [0.5] * 3, [0.25] * 3).eval()


@pytest.fixture
def smooth_network() -> Network:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(6 * 64, 5))
    return Network(body, [0.5] * 3, [0.25] * 3).eval()


@pytest.mark.parametrize("n_steps", [1, 16])
def test_equals_captum_called_plainly(
    network: Network, pixels: torch.Tensor, targets: torch.Tensor, n_steps: int
) -> None:
    maps, _ = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=n_steps)
    baselines = BASELINE[None, :, None, None].expand_as(pixels)
    plain = IntegratedGradients(network).attribute(pixels, baselines, target=targets, n_steps=n_steps)
    assert maps.shape == (4, 8, 8)
    assert maps.dtype == torch.float32
    assert (maps - plain.abs().sum(1)).abs().max() <= 1e-4 * maps.max()


@pytest.mark.parametrize("points", [1, 5, 32])  # less than a line, one line and a bit, two lines of 16
def test_memory_is_bounded_and_the_maps_are_the_same(
    network: Network, pixels: torch.Tensor, targets: torch.Tensor, points: int
) -> None:
    whole, whole_errors = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=16)
    largest = 0

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal largest
        largest = max(largest, len(inputs[0]))

    network.body.register_forward_pre_hook(note)
    maps, errors = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=16, points=points)
    assert largest <= points
    assert (maps - whole).abs().max() <= 1e-4 * whole.max()
    torch.testing.assert_close(errors, whole_errors, rtol=1e-2, atol=1e-3)


def test_linear_network_by_hand(pixels: torch.Tensor, targets: torch.Tensor) -> None:
    """Of a linear function, Integrated Gradients are weight times distance from the baseline, at any step count."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    network = Network(body, [0.5] * 3, [0.25] * 3).eval()
    maps, completeness = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=2)
    weight = body[1].weight.detach()[targets].reshape(4, 3, 8, 8) / 0.25
    expected = (weight * (pixels - BASELINE[None, :, None, None])).abs().sum(1)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    assert completeness.max() < 1e-3


def test_completeness_is_small_where_the_function_is_smooth(
    smooth_network: Network, pixels: torch.Tensor, targets: torch.Tensor
) -> None:
    _, completeness = integrated_gradients(smooth_network, pixels, targets, baseline=BASELINE, n_steps=64)
    assert completeness.shape == (4,)
    assert completeness.max() < 1e-3


def test_completeness_shows_a_coarse_quadrature(network: Network, pixels: torch.Tensor, targets: torch.Tensor) -> None:
    """It must be the relative error by definition, seen where one step is far too few."""
    _, completeness = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=1)
    baselines = BASELINE[None, :, None, None].expand_as(pixels)
    plain, delta = IntegratedGradients(network).attribute(
        pixels, baselines, target=targets, n_steps=1, return_convergence_delta=True
    )
    expected = delta.abs() / (plain.sum(dim=(1, 2, 3)) - delta).abs()
    torch.testing.assert_close(completeness.double(), expected.detach().double(), rtol=1e-2, atol=1e-3)


def test_an_image_equal_to_the_baseline_gives_zeros(smooth_network: Network) -> None:
    pixels = BASELINE[None, :, None, None].expand(1, 3, 8, 8)
    maps, completeness = integrated_gradients(smooth_network, pixels, torch.tensor([0]), baseline=BASELINE, n_steps=4)
    assert torch.equal(maps, torch.zeros(1, 8, 8))
    assert completeness.isfinite().all()


def test_the_network_is_left_as_it_was(network: Network, pixels: torch.Tensor, targets: torch.Tensor) -> None:
    maps, completeness = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=2)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not maps.requires_grad
    assert not completeness.requires_grad
    assert not pixels.requires_grad


def test_training_mode_is_refused(network: Network, pixels: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="training mode"):
        integrated_gradients(network.train(), pixels, targets, baseline=BASELINE, n_steps=2)


def test_of_several_the_mean_of_their_logits_is_explained(
    smooth_network: Network, pixels: torch.Tensor, targets: torch.Tensor
) -> None:
    """Signs included: of two networks whose logits cancel, nothing is left to explain, though each has its map."""
    torch.manual_seed(1)
    other = Network(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), [0.5] * 3, [0.25] * 3).eval()

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = (smooth_network(x) + other(x)) / 2
            return logits

    together = Network(Mean(), [0.0] * 3, [1.0] * 3).eval()
    maps, error = integrated_gradients([smooth_network, other], pixels, targets, baseline=BASELINE, n_steps=8)
    expected, expected_error = integrated_gradients(together, pixels, targets, baseline=BASELINE, n_steps=8)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(error, expected_error, rtol=1e-2, atol=1e-4)


def test_bfloat16_is_used_along_the_lines_and_keeps_the_order_of_the_pixels(
    network: Network, pixels: torch.Tensor, targets: torch.Tensor
) -> None:
    exact, _ = integrated_gradients(network, pixels, targets, baseline=BASELINE, n_steps=8)
    seen = set()
    network.body.features[3].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    reduced, errors = integrated_gradients(
        network, pixels, targets, baseline=BASELINE, n_steps=8, precision=torch.bfloat16
    )
    assert seen == {torch.bfloat16, torch.float32}  # what they should add up to is known exactly
    assert reduced.dtype == errors.dtype == torch.float32
    assert not torch.equal(reduced, exact)
    assert rank_correlation(reduced, exact).min() > 0.95


def test_rank_correlation_is_spearmans_with_ties_too() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, others = torch.rand(3, 4, 5, generator=generator).round(decimals=1), torch.rand(3, 4, 5, generator=generator)
    expected = [spearmanr(one.flatten(), other.flatten()).statistic for one, other in zip(maps, others, strict=True)]
    assert rank_correlation(maps, others).tolist() == pytest.approx(expected)
    assert rank_correlation(maps, maps**3).tolist() == pytest.approx([1, 1, 1])


def test_a_constant_map_has_no_order() -> None:
    flat, rising = torch.zeros(1, 2, 2), torch.arange(4.0).reshape(1, 2, 2)
    assert rank_correlation(flat, rising).tolist() == [0]
    assert rank_correlation(flat, flat).tolist() == [1]
