"""What runs on a node, beside its workers: a look at what is there, and the sending of assets."""

import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import igkd_hpo
from igkd_hpo.assets.parcel import Chunks
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.engines.ray.messages import NodeReport, Place
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.files import user_path
from igkd_hpo.remote import CHUNK_BYTES, Remote
from igkd_hpo.settings import Paths, Settings, host_name


def settings_there(place: Place) -> Settings:
    """Return the settings of a worker on this node."""
    if place.folder is None:
        return place.settings
    folder = user_path(place.folder)
    return replace(place.settings, paths=Paths(root=folder / "storage"))


def is_shared(place: Place) -> bool:
    """Return whether this node sees the caller's folder."""
    return (settings_there(place).paths.root / place.token).exists()


def find_fault(caller_version: str) -> str | None:
    """Say why no worker of the caller can run on this node; None where one can."""
    own = igkd_hpo.__version__
    if own == caller_version:
        return None
    return f"node {host_name()} has igkd-hpo {own} ({sys.executable}), and here is {caller_version}"


def look_around(place: Place, caller_version: str) -> NodeReport:
    """Tell what a worker would find on this node."""
    from igkd_hpo.search.storage import open_storage_here

    settings, shared, refused, no_remote = settings_there(place), is_shared(place), None, None
    try:
        open_storage_here(settings, create=False).engine.dispose()
    except UsageError:  # it is reached, and has no study yet
        pass
    except StorageError as error:
        refused = str(error)
    try:
        if settings.remote is not None:
            Remote(settings.remote).check()
    except UsageError as error:
        no_remote = str(error)
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = None
    missing = 0 if shared or place.parcel is None else place.parcel.missing_bytes(AssetStore(settings.paths.assets))
    fault = find_fault(caller_version)
    if fault is None and torch is None:
        fault = f"node {host_name()} has no PyTorch"
    return NodeReport(
        host=host_name(),
        igkd_hpo=igkd_hpo.__version__,
        torch=torch,
        database=refused,
        remote=no_remote,
        shared=shared,
        missing_bytes=missing,
        fault=fault,
    )


def read_chunk(path: Path, offset: int, length: int) -> bytes:
    """Read a part of a file, on the node that has it."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def chunks_from(sender: str, root: Path) -> Chunks:
    """Return how a store's files come from the node `sender`, through the object store, the next chunk read ahead.

    Two chunks are on their way, whatever a file's size. Each belongs to whoever asks for it and is gone once it was
    written: nothing stays in the object store, and a node may come hours later.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(sender, soft=False)
    read: Any = ray.remote(read_chunk).options(num_cpus=0, scheduling_strategy=there)

    def chunks(name: str, size: int) -> Iterable[bytes]:
        ahead: deque[Any] = deque()
        for offset in range(0, size, CHUNK_BYTES):
            ahead.append(read.remote(root / name, offset, CHUNK_BYTES))
            if len(ahead) > 1:
                yield ray.get(ahead.popleft())
        while ahead:
            yield ray.get(ahead.popleft())

    return chunks
