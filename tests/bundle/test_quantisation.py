"""Which way to int8 is kept, and how many images each is given."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from igkd_hpo.bundle.onnx_files import InputFacts, write_onnx
from igkd_hpo.bundle.quantisation import _percentile_images, write_int8
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import IgkdError

FACTS = InputFacts(class_names=("dark", "bright"), image_size=(8, 8), bits=None, fit="squeeze")


def brightness() -> nn.Module:
    """Logits of two classes, dark and bright, from a convolution that keeps what it sees."""
    body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        body[0].weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1))
        body[0].bias.zero_()
    return body


def test_where_all_ways_agree_alike_the_first_is_kept(tmp_path: Path) -> None:
    images = np.concatenate([np.full((20, 3, 8, 8), value, np.uint8) for value in (10, 240)])
    source, path = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    network = Network(brightness(), [0.5] * 3, [0.25] * 3).eval()
    write_onnx(network, source, FACTS)
    seen: list[None] = []
    tried = write_int8(source, path, images, images[::3], on_way=lambda: seen.append(None))
    assert [one.agreement for one in tried] == [1, 1, 1, 1]
    assert [(one.weights, one.activations) for one in tried if one.kept] == [("per channel", "min-max")]
    assert len(seen) == 4
    assert {one.images for one in tried} == {14}
    assert OnnxStudent(path).logits(images).argmax(axis=1).tolist() == 20 * [0] + 20 * [1]
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in onnx.load(path).graph.node}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.int8.onnx", "model.onnx"]


def test_a_way_that_finds_no_ranges_is_left_out(tmp_path: Path) -> None:
    images = np.concatenate([np.full((20, 3, 8, 8), value, np.uint8) for value in (10, 240)])
    body = brightness()
    with torch.no_grad():
        body[0].bias.fill_(1e9)  # beside which what differs between images is a rounding
    source, path = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    network = Network(body, [0.5] * 3, [0.25] * 3).eval()
    write_onnx(network, source, FACTS)
    tried = write_int8(source, path, images, images[::3])
    assert [one.activations for one in tried] == ["min-max", "min-max"]
    assert [one.kept for one in tried].count(True) == 1
    assert path.exists()


def test_a_network_of_which_torch_or_onnxruntime_make_nothing_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) if x.sum() > 0 else x.amax(dim=(2, 3))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel")

    source, images = tmp_path / "model.onnx", np.zeros((4, 3, 8, 8), np.uint8)
    network = Network(Deciding(), [0.5] * 3, [0.25] * 3).eval()
    with pytest.raises(IgkdError, match="as ONNX") as told:
        write_onnx(network, source, FACTS)
    assert len(str(told.value).splitlines()) == 1
    network = Network(brightness(), [0.5] * 3, [0.25] * 3).eval()
    write_onnx(network, source, FACTS)
    monkeypatch.setattr("igkd_hpo.bundle.quantisation._quantise", fail)
    with pytest.raises(IgkdError, match="no kernel"):
        write_int8(source, tmp_path / "model.int8.onnx", images, images)


@pytest.mark.parametrize(("size", "count"), [(8, 128), (96, 128), (160, 46), (192, 32), (224, 32)])
def test_histograms_are_made_of_fewer_images_where_these_are_large(size: int, count: int) -> None:
    assert _percentile_images(np.empty((512, 3, size, size), np.uint8)) == count
