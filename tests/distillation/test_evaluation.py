from collections.abc import Callable

import pytest
import torch

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.evaluation import accuracy, evaluating, forward_in_batches, predict
from igkd_hpo.distillation.models import Network, to_pixels

CPU = torch.device("cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (70, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(mobilenet_v2(num_classes=10, width=0.25, layers_removed=9), [0.5] * 3, [0.25] * 3)


def test_logits_are_the_networks_own(network: Network, images: torch.Tensor) -> None:
    network.eval()
    with torch.no_grad():
        expected = network(images.float() / 255)
    torch.testing.assert_close(predict(network, images, device=CPU), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [1, 63, 64, 65])
def test_a_row_does_not_depend_on_how_many_there_are(network: Network, images: torch.Tensor, n: int) -> None:
    assert torch.equal(predict(network, images[:n], device=CPU), predict(network, images, device=CPU)[:n])


def test_every_batch_has_the_same_size(network: Network, images: torch.Tensor) -> None:
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert len(predict(network, images, batch_size=32, device=CPU)) == 70
    assert sizes == [32, 32, 32]


def test_bytes_and_pixels_give_the_same_logits(network: Network, images: torch.Tensor) -> None:
    assert torch.equal(
        forward_in_batches(network, images, batch_size=64),
        forward_in_batches(network, to_pixels(images), batch_size=64),
    )


def test_training_mode_and_statistics_are_left_as_they_were(
    tiny_network: Callable[[], Network], images: torch.Tensor
) -> None:
    network = tiny_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = predict(network, images, device=CPU), predict(network, images, device=CPU)
    assert network.training
    assert torch.equal(first, second)  # dropout off
    assert not first.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_mode_comes_back_after_an_error(tiny_network: Callable[[], Network]) -> None:
    network = tiny_network().train()
    with pytest.raises(RuntimeError, match="broken"), evaluating(network):
        raise RuntimeError("broken")
    assert network.training
    assert torch.is_grad_enabled()


def test_accuracy_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 4.0]])
    assert accuracy(logits, torch.tensor([0, 0, 1])) == pytest.approx(2 / 3)
