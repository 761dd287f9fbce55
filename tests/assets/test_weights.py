"""Weights that networks begin with: from a file, from a library's cache, and from the asset alone."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.weights import Weights, begin_with, open_weights, prepare_weights
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.errors import AssetError, AssetMissing, DataError
from igkd_hpo.settings import Paths, Settings
from tests.assets.conftest import RecordingProgress

LCNET, SHUFFLENET = "timm/lcnet_050.ra2_in1k", "torchvision/shufflenet_v2_x0_5"


def request(name: str, num_classes: int = 3) -> Request:
    return Request(name=name, num_classes=num_classes, image_size=(64, 64), allow_import=frozenset({"own_student"}))


def numbers(name: str, num_classes: int = 1000) -> dict[str, Tensor]:
    """A state dict of the network whose every number is drawn."""
    body = find_architecture(name).build(request(name, num_classes))
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value + 5
        for key, value in body.state_dict().items()
    }


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        paths=Paths(root=tmp_path), storage_url="", data_root=tmp_path, allow_import=frozenset({"own_student"})
    )


@pytest.fixture
def store(tmp_path: Path) -> AssetStore:
    return AssetStore(tmp_path / "assets")


def prepare(name: str, file: str | None, settings: Settings, store: AssetStore) -> Weights:
    return prepare_weights(request(name), file, settings, store, SilentProgress(), key="student.weights")


@pytest.mark.parametrize("name", [LCNET, SHUFFLENET])
@pytest.mark.parametrize("wrapped", ["plain", "module", "nested", "renamed"])
def test_a_file_gives_all_but_the_classifier(
    name: str, wrapped: str, settings: Settings, store: AssetStore, tmp_path: Path
) -> None:
    state = numbers(name)
    content: object = state
    match wrapped:
        case "module":
            content = {f"module.{key}": value for key, value in state.items()}
        case "nested":
            content = {"epoch": 3, "state_dict_ema": state}
        case "renamed":
            content = {
                f"layer{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(state.items())
            }
    torch.save(content, tmp_path / "own.pt")
    weights = prepare(name, "own.pt", settings, store)
    body = find_architecture(name).build(request(name))
    before = {key: value.clone() for key, value in body.state_dict().items()}
    taken = begin_with(body, weights, cut=False)
    after = body.state_dict()
    classifier = {key for key, value in before.items() if value.shape != state[key].shape}
    assert len(classifier) == 2
    assert set(weights.classifier) == classifier
    assert all(after[key].abs().max() < 0.1 for key in classifier), "the first logits are small"
    floats = {key for key, value in before.items() if value.is_floating_point()}
    assert taken >= floats - classifier
    assert all(torch.equal(after[key], state[key]) for key in floats - classifier)


def test_a_cut_network_takes_what_is_left(settings: Settings, store: AssetStore, tmp_path: Path) -> None:
    state = numbers(LCNET)
    torch.save(state, tmp_path / "own.pt")
    weights = prepare(LCNET, "own.pt", settings, store)
    body = find_architecture(LCNET).build(request(LCNET), stages_removed=1)
    taken = begin_with(body, weights, cut=True)
    after = body.state_dict()
    assert "conv_stem.weight" in taken
    assert not any(key.startswith("blocks.5") for key in taken)
    assert all(torch.equal(after[key], state[key]) for key in taken)
    whole = find_architecture(LCNET).build(request(LCNET))
    whole.add_module("more", torch.nn.Linear(2, 2))  # as another version of the library might have it
    with pytest.raises(AssetError):
        begin_with(whole, weights, cut=False)


def test_another_host_needs_neither_file_nor_network(settings: Settings, store: AssetStore, tmp_path: Path) -> None:
    torch.save(numbers(SHUFFLENET), tmp_path / "own.pt")
    made = prepare(SHUFFLENET, "own.pt", settings, store)
    (tmp_path / "own.pt").unlink()
    assert prepare(SHUFFLENET, "own.pt", settings, store).sha256 == made.sha256
    assert open_weights(request(SHUFFLENET), "own.pt", store).sha256 == made.sha256
    with pytest.raises(AssetMissing):
        open_weights(request(SHUFFLENET), "other.pt", store)
    with pytest.raises(DataError):
        prepare(SHUFFLENET, "other.pt", settings, store)


def test_other_numbers_under_the_same_path_are_other_weights(
    settings: Settings, store: AssetStore, tmp_path: Path
) -> None:
    state = numbers(SHUFFLENET)
    torch.save(state, tmp_path / "own.pt")
    first = prepare(SHUFFLENET, "own.pt", settings, store)
    state["conv1.0.weight"][0, 0, 0, 0] += 1
    torch.save(state, tmp_path / "own.pt")
    assert prepare(SHUFFLENET, "own.pt", settings, store).sha256 != first.sha256


def test_weights_of_another_network_are_refused(settings: Settings, store: AssetStore, tmp_path: Path) -> None:
    torch.save(numbers(SHUFFLENET), tmp_path / "own.pt")
    with pytest.raises(DataError, match=LCNET):
        prepare(LCNET, "own.pt", settings, store)


def test_torchvision_reads_its_own_from_its_cache(
    settings: Settings, store: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    state = numbers(SHUFFLENET)
    torch.save(state, cache / published.url.rpartition("/")[2])
    weights = prepare(SHUFFLENET, None, settings, store)
    assert weights.source == published.name
    assert weights.url == published.url
    assert weights.mean == pytest.approx((0.485, 0.456, 0.406))
    assert torch.equal(weights.tensors()["conv5.0.weight"], state["conv5.0.weight"])
    os.unlink(cache / published.url.rpartition("/")[2])
    assert prepare(SHUFFLENET, None, settings, store).sha256 == weights.sha256


def test_timm_reads_its_own_from_the_hubs_cache(
    settings: Settings, store: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="file"):
        prepare(LCNET, None, settings, store)
    state = numbers(LCNET)
    put_into_the_hubs_cache(state, LCNET, tmp_path, monkeypatch)
    weights = prepare(LCNET, None, settings, store)
    assert (weights.source, weights.licence) == ("ra2_in1k", "apache-2.0")
    assert weights.url == "https://huggingface.co/timm/lcnet_050.ra2_in1k"
    assert torch.equal(weights.tensors()["conv_stem.weight"], state["conv_stem.weight"])


def test_timm_brings_its_own_to_the_size_of_the_images(
    settings: Settings, store: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    small, usual = (replace(request(name, 1000), image_size=(side, side)) for side in (96, 224))
    state = find_architecture(name).build(usual).state_dict()
    put_into_the_hubs_cache(state, name, tmp_path, monkeypatch)
    weights = prepare_weights(small, None, settings, store, SilentProgress(), key="student.weights")
    assert weights.tensors()["pos_embed"].shape == (1, 37, 192)
    begin_with(find_architecture(name).build(small), weights, cut=False)


def put_into_the_hubs_cache(state: dict[str, Tensor], name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the hub's client had downloaded it, and there were no network any more."""
    import huggingface_hub.constants
    from safetensors.torch import save_file

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository, commit = cache / f"models--{name.replace('/', '--')}", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    save_file(state, repository / "snapshots" / commit / "model.safetensors")


OWN = """
from torch import nn

def net(num_classes, image_size):
    assert image_size == (64, 64)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def test_peoples_own_network_takes_a_file_and_has_no_published_ones(
    settings: Settings, store: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_student.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_student:net"
    torch.save(numbers(name, 7), tmp_path / "own.pt")
    weights = prepare(name, "own.pt", settings, store)
    assert set(weights.classifier) == {"3.weight", "3.bias"}
    with pytest.raises(DataError):
        weights.statistics()
    with pytest.raises(DataError):
        prepare(name, None, settings, store)


@pytest.mark.parametrize("kind", ["int8", "complex", "nan"])
def test_numbers_that_are_no_weights_are_refused(
    kind: str, settings: Settings, store: AssetStore, tmp_path: Path
) -> None:
    state = numbers(SHUFFLENET)
    first = state["conv1.0.weight"]
    changed = {"int8": first.to(torch.int8), "complex": first.to(torch.complex64), "nan": first / 0 - first / 0}
    torch.save(state | {"conv1.0.weight": changed[kind]}, tmp_path / "own.pt")
    with pytest.raises(DataError, match=r"own\.pt .*conv1\.0\.weight"):
        prepare(SHUFFLENET, "own.pt", settings, store)
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()},
               tmp_path / "own.pt")  # fmt: skip
    body = find_architecture(SHUFFLENET).build(request(SHUFFLENET))
    begin_with(body, prepare(SHUFFLENET, "own.pt", settings, store), cut=False)
    assert torch.equal(body.state_dict()["conv1.0.weight"], first.half().float())


def test_what_is_taken_of_several_weights_is_told(settings: Settings, store: AssetStore, tmp_path: Path) -> None:
    state, progress = numbers(SHUFFLENET), RecordingProgress()
    torch.save({"state_dict_ema": dict(state), "state_dict": state}, tmp_path / "own.pt")
    prepare_weights(request(SHUFFLENET), "own.pt", settings, store, progress, key="student.weights")
    note = progress.notes[-1]
    assert note.endswith("state_dict taken, and not state_dict_ema")


@pytest.mark.parametrize("name", ["timm/convnext_atto", "torchvision/mobilenet_v3_small"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_layer_of_the_body_may_lie_beside_the_classifier(
    name: str, prefix: str, settings: Settings, store: AssetStore, tmp_path: Path
) -> None:
    state = numbers(name)
    torch.save({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "own.pt")
    weights = prepare(name, "own.pt", settings, store)
    assert weights.tensors().keys() == state.keys() - set(weights.classifier)
    torch.save(state | {"blocks.7.conv.weight": torch.ones(1)}, tmp_path / "own.pt")
    assert prepare(name, "own.pt", settings, store).sha256 == weights.sha256  # no part of it is called so
    torch.save(state | {"features.99.weight": torch.ones(1), "stages.9.weight": torch.ones(1)}, tmp_path / "own.pt")
    with pytest.raises(DataError):
        prepare(name, "own.pt", settings, store)


def test_weights_of_a_network_of_one_size_are_for_that_size(
    settings: Settings, store: AssetStore, tmp_path: Path
) -> None:
    """Two studies of other images share a store: each gets its own, and a file of the other size is told as that."""
    name = "timm/vit_tiny_patch16_224"

    def sized(side: int) -> Request:
        return replace(request(name), image_size=(side, side))

    def prepare_for(side: int) -> Weights:
        return prepare_weights(sized(side), "own.pt", settings, store, SilentProgress(), key="student.weights")

    bodies = {side: find_architecture(name).build(sized(side)) for side in (96, 224)}
    made = {}
    for side, body in bodies.items():
        torch.save(body.state_dict(), tmp_path / "own.pt")
        made[side] = prepare_for(side)
    with pytest.raises(DataError, match=r"224x224.*96x96"):
        prepare_for(96)
    (tmp_path / "own.pt").unlink()
    for side, body in bodies.items():
        assert prepare_for(side).sha256 == open_weights(sized(side), "own.pt", store).sha256 == made[side].sha256
        begin_with(body, made[side], cut=False)
    with pytest.raises(DataError):
        prepare_for(64)  # for which there are none


def test_a_cut_network_that_lacks_more_than_its_end_is_refused(
    settings: Settings, store: AssetStore, tmp_path: Path
) -> None:
    torch.save(numbers(LCNET), tmp_path / "own.pt")
    weights = prepare(LCNET, "own.pt", settings, store)
    body = find_architecture(LCNET).build(request(LCNET), stages_removed=1)
    body.conv_stem = torch.nn.Conv2d(3, 8, 5)  # as another version of the library might have it
    with pytest.raises(AssetError, match=r"conv_stem"):
        begin_with(body, weights, cut=True)
