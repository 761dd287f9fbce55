"""Networks that people ship: built, cut, trained for a step, deployed, exported, and compared in onnxruntime.

Three of them always; all with EVERY_NETWORK=1.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from igkd_hpo.bundle.onnx_files import InputFacts, write_onnx
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.distillation.cost import count_macs
from igkd_hpo.distillation.models import Network, count_parameters, to_pixels
from igkd_hpo.distillation.peak_memory import count_peak_activations
from igkd_hpo.trial.student import deployed

SIZE = (64, 64)
ALWAYS = ["timm/repvgg_a0", "timm/starnet_s050", "timm/mobilenetv4_conv_small_050"]
ON_DEMAND = [
    "timm/lcnet_050", "timm/tinynet_e", "timm/mobilenetv4_conv_small", "timm/mobilenetv3_small_100",
    "timm/efficientnet_lite0", "timm/mobileone_s0", "timm/resnet18", "torchvision/shufflenet_v2_x0_5",
    "torchvision/mobilenet_v2", "timm/ghostnet_100", "timm/mobilevit_xxs", "timm/vit_tiny_patch16_224",
]  # fmt: skip
NETWORKS = ALWAYS + (ON_DEMAND if os.environ.get("EVERY_NETWORK") else [])
BRANCHED = ("timm/mobileone_s0", "timm/repvgg_a0")


def train_a_step(network: Network, images: torch.Tensor) -> None:
    """One step on one batch, after which batch normalisation knows that batch alone, so that images are told apart."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    F.cross_entropy(network.train()(to_pixels(images)), torch.arange(len(images))).backward()
    optimizer.step()
    network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_trained_here_is_what_runs_on_the_device(name: str, tmp_path: Path) -> None:
    kind, request = find_architecture(name), Request(name=name, num_classes=10, image_size=SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole, body = kind.build(request), kind.build(request, stages_removed=1)
        network = Network(body, [0.45] * 3, [0.25] * 3)
        images = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8)
        train_a_step(network, images)
    assert count_parameters(body) < count_parameters(whole)

    shipped = Network(deployed(body, name), network.mean, network.std).eval()
    with torch.inference_mode():
        trained, wanted = network(to_pixels(images)).numpy(), shipped(to_pixels(images)).numpy()
    largest = np.abs(trained).max()
    assert np.ptp(trained, axis=0).max() > 0.01 * largest  # of a network that says the same of all nothing is learned
    assert np.abs(wanted - trained).max() < 1e-4 * largest
    assert (shipped.body is body) == (name not in BRANCHED)
    assert count_macs(shipped.body, SIZE) > 0
    assert count_peak_activations(shipped.body, SIZE) >= 3 * SIZE[0] * SIZE[1]

    write_onnx(
        shipped,
        tmp_path / "model.onnx",
        InputFacts(class_names=tuple("0123456789"), image_size=SIZE, bits=None, fit="squeeze"),
    )
    student = OnnxStudent(tmp_path / "model.onnx")
    for count in (4, 1):
        found = student.logits(images[:count].numpy())
        assert np.abs(found - wanted[:count]).max() < 1e-4 * largest
