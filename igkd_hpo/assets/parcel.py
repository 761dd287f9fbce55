"""Send a study's assets to a host that shares no folder with this one: by content, whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from igkd_hpo.assets.files import require_space, sync_folder, writing
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import MANIFEST, AssetStore
from igkd_hpo.errors import AssetError, DataError
from igkd_hpo.files import make_folder, write_bytes

Chunks = Callable[[str, int], Iterable[bytes]]
"""Gives a file of the sender's store, by its name below it and its size in bytes, in chunks of any sizes, in order."""

_Files = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """All that a study's trials read of a store, the files themselves left out.

    Args:
        manifests: of the assets, by the names of their folders.
        references: that lead to them, by their names below the store.
    """

    manifests: Mapping[str, bytes] = field(repr=False)
    references: Mapping[str, bytes] = field(repr=False)

    def missing_bytes(self, store: AssetStore) -> int:
        """Return how much of it is not in a store."""
        missing = [content for name, content in self.manifests.items() if not (store.root / name).is_dir()]
        return sum(int(entry["bytes"]) for content in missing for entry in _files(content).values())


def pack(store: AssetStore) -> Parcel:
    """Make a parcel of what was read of a store until now."""
    used = {name: (store.root / name).read_bytes() for name in sorted(store.used)}
    manifests = {name.removesuffix(f"/{MANIFEST}"): read for name, read in used.items() if name.endswith(MANIFEST)}
    return Parcel(
        manifests=manifests, references={name: read for name, read in used.items() if not name.endswith(MANIFEST)}
    )


def receive(parcel: Parcel, store: AssetStore, chunks: Chunks, progress: Progress) -> int:
    """Write what a store lacks of a parcel, and return how many bytes came; of several who call it, one writes.

    Raises:
        DataError: the store has an asset of the same name with other content.
        AssetError: a file arrived damaged, or cannot be written; nothing of its asset stays.
    """
    received = 0
    for name, manifest in parcel.manifests.items():
        with store.lock(name, progress, waiting_for=f"another worker that receives {name}"):
            if (store.root / name).is_dir():
                _refuse_other(store, name, manifest)
            else:
                received += _receive(store, name, manifest, chunks)
    for name, content in parcel.references.items():
        path = store.root / name
        with writing(path):
            make_folder(path.parent)
            write_bytes(path, content)
    return received


def _files(manifest: bytes) -> _Files:
    files: _Files = json.loads(manifest)["files"]
    return files


def _refuse_other(store: AssetStore, name: str, manifest: bytes) -> None:
    path = store.root / name
    try:
        same = _hashes(_files((path / MANIFEST).read_bytes())) == _hashes(_files(manifest))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise DataError(f"{path} is not that of the study, which was made elsewhere; delete that folder and run again")


def _hashes(files: _Files) -> dict[str, str]:
    return {name: str(entry["sha256"]) for name, entry in files.items()}


def _receive(store: AssetStore, name: str, manifest: bytes, chunks: Chunks) -> int:
    target, folder, files = store.root / name, store.root / f"{name}.partial", _files(manifest)
    size = sum(int(entry["bytes"]) for entry in files.values())
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
    try:
        require_space(folder, size)
        for file, entry in files.items():
            _write(store, f"{name}.partial/{file}", chunks(f"{name}/{file}", int(entry["bytes"])), entry["sha256"])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    with writing(target):
        write_bytes(folder / MANIFEST, manifest)
        sync_folder(folder)
        folder.rename(target)
        sync_folder(store.root)
    return size


def _write(store: AssetStore, name: str, chunks: Iterable[bytes], expected: str) -> None:
    path, digest = store.root / name, sha256()
    with writing(path), path.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != expected:
        raise AssetError(
            f"{path} arrived damaged (sha256 {digest.hexdigest()[:12]}, not {expected[:12]}); it is fetched again when "
            "its worker starts again; if that does not help, check the sender's memory and disk"
        )
