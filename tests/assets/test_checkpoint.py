"""Checkpoints: whatever weights are wrapped in they are found, and no file takes more than it should."""

import argparse
import io
import json
import os
import random
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models import get_model

from igkd_hpo.assets.checkpoint import Taken, load_weights, read_tensors
from igkd_hpo.assets.checkpoint_fit import Shape, describe_misfit, find_fits
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import prepare_assets
from igkd_hpo.assets.teacher_network import load_given_body, teacher_request
from igkd_hpo.config.networks import TeacherConfig
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.errors import DataError
from igkd_hpo.settings import Paths, Settings

from .conftest import make_study


def shapes_of(name: str, **options: Any) -> dict[str, Shape]:
    with torch.device("meta"):
        state = get_model(name, weights=None, **options).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


RESNET = shapes_of("resnet18", num_classes=3)
HEADLESS = {name: shape for name, shape in RESNET.items() if not name.startswith("fc.")}
WORDS = st.text("abcxyz_", min_size=1, max_size=6).map(lambda word: f"w{word}")  # no name of a network's
PREFIXES = st.lists(st.one_of(WORDS, st.sampled_from(["module", "model", "backbone", "_orig_mod", "0"])), max_size=4)


def test_a_file_of_the_same_names_below_thousands_of_prefixes_is_searched_below_few() -> None:
    given = {f"part{number}.{name}": (3,) for number in range(3000) for name in ("weight", "bias")}
    given |= {"net.weight": (2, 3), "net.bias": (2,)}
    named = [*find_fits(given | {"net.extra": ()}, {"weight": (3,), "bias": (3,)})]
    assert 0 < len(named) < 100
    assert len(find_fits(given, {"other": (3,), "another": (3,)})) == 1


@given(data=st.data(), prefix=PREFIXES, counted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_weights_are_found_below_any_prefix_among_any_extras_in_any_order(
    data: st.DataObject, prefix: list[str], counted: bool
) -> None:
    within = "".join(f"{word}." for word in prefix)
    weights = {within + name: shape for name, shape in RESNET.items() if counted or "num_batches" not in name}
    shape = st.sampled_from([(), (3,), (3, 512), (64,)])
    extras = data.draw(st.dictionaries(WORDS.map(lambda word: f"{word}.extra"), shape, max_size=5))
    counters = {f"{within}layer1.0.conv1.total_ops": (1,), "n_averaged": ()}
    names = list({**extras, **counters, **weights}.items())
    random.Random(data.draw(st.integers(0, 99))).shuffle(names)
    (fit,) = find_fits(dict(names), RESNET)
    assert fit.whole
    assert all(file == within + name for name, file in fit.names.items())
    assert set(fit.names) | {name for name in RESNET if "num_batches" in name} == set(RESNET)
    assert set(fit.extras) == set(extras)


@pytest.mark.parametrize(
    ("given_shapes", "told"),
    [
        (shapes_of("resnet18", num_classes=7), "tells 7 classes apart and the dataset has 3"),
        (shapes_of("resnet34", num_classes=3), "another architecture"),  # it holds a whole resnet18
        ({k: (*v[:-1], 2 * v[-1]) if v else v for k, v in RESNET.items()}, "another width"),
        (shapes_of("vgg11", num_classes=3), "nothing that fits"),
        ({**HEADLESS, "fc.1.weight": (9, 512), "fc.3.weight": (3, 9)}, "another head"),
    ],
)
def test_what_differs_decides_the_advice(given_shapes: dict[str, Shape], told: str) -> None:
    (fit,) = find_fits(given_shapes, RESNET)
    assert not fit.whole
    finding, advice = describe_misfit(fit, given_shapes, RESNET, num_classes=3)
    assert told in finding
    assert advice


def test_a_larger_sequential_is_no_extra() -> None:
    layers = {f"{number}.weight": (2, 2) for number in (0, 2, 4)}
    (fit,) = find_fits(layers, {name: layers[name] for name in ("0.weight", "2.weight")})
    assert fit.surplus == ("4.weight",)


class Small(nn.Module):
    def __init__(self, number: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 2)
        nn.init.constant_(self.fc.bias, number)


def lightning(network: nn.Module) -> Any:
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    weighted = {**state, "criterion.weight": torch.ones(2)}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9).state_dict()
    return {"epoch": 3, "state_dict": weighted, "optimizer_states": [optimizer], "callbacks": {}}


def reference_script(network: nn.Module) -> Any:
    return {"model": network.state_dict(), "args": argparse.Namespace(lr=0.1), "lr_scheduler": {"last_epoch": 3}}


def renamed(network: nn.Module) -> Any:
    """The same layers under other names, as people keep them who took a network apart."""
    parts = {"body.0": "front_layers.0", "body.1": "middle_layer", "fc": "end.2"}
    pairs = [(name.rpartition("."), value) for name, value in network.state_dict().items()]
    return {f"{parts[layer]}.{leaf}": value for (layer, _, leaf), value in pairs}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda network: network.state_dict(),
        lambda network: nn.DataParallel(network).state_dict(),
        lambda network: AveragedModel(network).state_dict(),
        lambda network: {"state_dict": {f"backbone.network.{k}": v for k, v in network.state_dict().items()}},
        lambda network: {k.replace("body.", "body._orig_mod."): v for k, v in network.state_dict().items()},
        lambda network: {k: v for k, v in network.state_dict().items() if "num_batches" not in k},
        lambda network: {k.replace("fc.", "fc.1."): v for k, v in network.state_dict().items()},
        lambda network: {"models": [network.state_dict()]},
        lightning,
        reference_script,
        renamed,
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_usual_wrappings_are_taken(wrapped: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save(wrapped(Small(0.25)), path := tmp_path / "t.pt", _use_new_zipfile_serialization=zipped)
    taken = load(network := Small(), path)
    assert network.fc.bias.tolist() == [0.25, 0.25]
    assert taken.others == ()


def load(network: nn.Module, path: Path, wanted: str | None = None) -> Taken:
    return load_weights(network, read_tensors(path), path=path, num_classes=2, wanted=wanted)


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict", "state_dict_ema"),  # timm
        ("model", "model_ema"),  # torchvision's reference scripts
        ("online_model", "ema_model"),  # ema-pytorch
        ("net", "swa"),
    ],
)
def test_of_raw_and_averaged_weights_the_choice_is_named_and_can_be_made(
    raw: str, averaged: str, tmp_path: Path
) -> None:
    states = {averaged: AveragedModel(Small(2.0)).state_dict(), raw: Small(1.0).state_dict(), "step": 3}
    torch.save(states, path := tmp_path / "t.pt")
    taken = load(network := Small(), path)
    assert (network.fc.bias[0], taken.weights, taken.others) == (1.0, raw, (f"{averaged}.module",))
    assert raw in (told := taken.tell() or "")
    assert averaged in told
    for wanted in (averaged, f"{averaged}.module"):
        assert load(network, path, wanted).others == ()
        assert network.fc.bias[0] == 2.0
    with pytest.raises(DataError, match=f"'{averaged}x' is not in .*did you mean {averaged}"):
        load(network, path, f"{averaged}x")


def test_what_was_left_out_is_counted(tmp_path: Path) -> None:
    torch.save(lightning(Small()), path := tmp_path / "t.pt")
    assert load(Small(), path).left_out == {"state_dict.criterion": 1}


@pytest.mark.parametrize(("name", "heads"), [("googlenet", False), ("googlenet", True), ("inception_v3", False)])
def test_auxiliary_heads_may_be_there_or_not(name: str, heads: bool, tmp_path: Path) -> None:
    with torch.device("meta"):
        state = get_model(name, num_classes=3, aux_logits=heads, init_weights=False).state_dict()
    torch.save({key: torch.zeros(value.shape) for key, value in state.items()}, tmp_path / "t.pt")
    teacher = TeacherConfig.model_validate({"architecture": name, "checkpoint": str(tmp_path / "t.pt")})
    here = Settings(paths=Paths(root=tmp_path), storage_url="", data_root=tmp_path, allow_import=frozenset())
    body, _ = load_given_body(teacher, teacher_request(teacher, 3, (64, 64), here), here)
    assert set(body.state_dict()) == set(state)


def test_a_mobilenet_under_other_names_has_as_many_blocks(tmp_path: Path) -> None:
    state = mobilenet_v2(num_classes=2, width=0.1, layers_removed=5).state_dict()
    split = {"front": range(3), "middle": range(3, 4), "end": range(4, 19)}

    def other(name: str) -> str:
        first, number, *rest = name.split(".")
        part = next((part for part, blocks in split.items() if first == "features" and int(number) in blocks), "fc")
        return ".".join([f"{part}_layers", number, *rest])

    torch.save({other(name): value for name, value in state.items()}, tmp_path / "t.pt")
    teacher = TeacherConfig(checkpoint=str(tmp_path / "t.pt"), width=0.1)
    here = Settings(paths=Paths(root=tmp_path), storage_url="", data_root=tmp_path, allow_import=frozenset())
    body, _ = load_given_body(teacher, teacher_request(teacher, 2, (64, 64), here), here)
    assert all(torch.equal(value, state[name]) for name, value in body.state_dict().items())


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


class RunsCode:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


class TakesMemory:
    def __reduce__(self) -> Any:
        return bytearray, (1 << 60,)


def saved(content: object) -> bytes:
    torch.save(content, buffer := io.BytesIO())
    return buffer.getvalue()


def lying_safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    return len(header).to_bytes(8, "little") + header


STRANGE: dict[str, Any] = {
    "folder": Path.mkdir,
    "pipe": make_pipe,
    "socket": make_socket,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "passwords": lambda path: path.symlink_to("/etc/passwd"),
    "empty": b"",
    "word": b"hello",
    "cut off": saved({"a": torch.ones(9)})[:-30],
    "bare pickle": b"\x80\x04K\x01.",
    "code": saved({"a": torch.ones(1), "b": RunsCode()}),
    "memory": saved({"a": torch.ones(1), "b": TakesMemory()}),
    "page": b"<!DOCTYPE html><html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "huge header": (1 << 60).to_bytes(8, "little") + b'{"a": 1}',
    "lying header": lying_safetensors(),
    "no tensor": saved({"epoch": 3}),
    "other zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_files_are_refused_at_once_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, made = Path("t.pt"), STRANGE[kind]
    path.write_bytes(made) if isinstance(made, bytes) else made(path)
    with limited(memory=1 << 28), pytest.raises(DataError) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)
    assert not Path("ran").exists()


@contextmanager
def limited(*, memory: int) -> Iterator[None]:
    """Fail where the process's peak of resident memory rises by more."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < memory


def test_a_strange_file_is_refused_before_images_are_decoded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "teacher.pt")
    here = Settings(paths=Paths(root=tmp_path), storage_url="", data_root=tmp_path, allow_import=frozenset())
    study = make_study(teacher={"architecture": "resnet18", "checkpoint": "teacher.pt"})
    with pytest.raises(DataError, match="is a pipe and no file"):  # and not that there are no images
        prepare_assets(study, here, device="cpu", progress=SilentProgress())


STATE = {"a.weight": torch.arange(24.0).reshape(2, 3, 4), "a.bias": torch.ones(2).half(), "n": torch.tensor(3)}


def old_form() -> bytes:
    torch.save(STATE, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    return buffer.getvalue()


FILES = (saved({"state_dict": STATE, "epoch": 3}), old_form(), save_safetensors(STATE))


@given(
    file=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 20), st.binary(max_size=9)), max_size=5),
)
@example(file=FILES[1], changes=[(0, 0, b"")])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_gives_tensors_or_an_error_of_ours(
    file: bytes, changes: list[tuple[int, int, bytes]], tmp_path: Path
) -> None:
    damaged = bytearray(file)
    for start, removed, put in changes:
        damaged[start : start + removed] = put
    path = tmp_path / "t.pt"
    path.unlink(missing_ok=True)  # a mapping of the last one may still be open
    path.write_bytes(damaged)
    with limited(memory=1 << 28), suppress(DataError):
        assert all(isinstance(value, torch.Tensor) for value in read_tensors(path).values())
