"""Send a study's assets to hosts that share no folder with this one: by content, whole or not at all.

They come from the sender itself, or from a remote folder, in which each file is named by its SHA-256: two hosts that
make assets of the same inputs at once may write other bits, and each of their parcels finds its own.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from igkd_hpo.assets.files import require_space, sync_folder, writing
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import MANIFEST, AssetStore
from igkd_hpo.errors import AssetError, DataError
from igkd_hpo.files import make_folder, write_bytes
from igkd_hpo.remote import CHUNK_BYTES, Remote

Chunks = Callable[[str, int], Iterable[bytes]]
"""Gives a file of the sender's store, by its name below it and its size in bytes, in chunks of any sizes, in order."""

_NAME = r"\w[\w.-]*"  # others may write there too
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


def put_parcel(parcel: Parcel, key: str, store: AssetStore, remote: Remote) -> None:
    """Write into a remote folder what it lacks of a parcel, and last the parcel, under a key. Raises AssetError."""
    there = remote.names("files")
    for content, name in {content: name for name, content in _contents(parcel).items()}.items():
        if content not in there:
            remote.write(f"files/{content}", _chunks_of(store.root / name))
    written = {
        "manifests": {name: text.decode() for name, text in parcel.manifests.items()},
        "references": {name: text.decode() for name, text in parcel.references.items()},
    }
    remote.write(f"parcels/{key}.json", [json.dumps(written).encode()])


def find_parcel(key: str, remote: Remote) -> Parcel | None:
    """Return what `put_parcel` wrote under a key; None where that is not there, or not whole. Raises AssetError."""
    content = b"".join(remote.read(f"parcels/{key}.json"))
    if not content:
        return None
    try:
        found = json.loads(content)
        manifests = {name: text.encode() for name, text in found["manifests"].items()}
        references = {name: text.encode() for name, text in found["references"].items()}
        files = [part for manifest in manifests.values() for part in _hashes(_files(manifest)).items()]
        inner = [name.removeprefix("references/") for name in references]
        if not all(re.fullmatch(_NAME, name) for name in (*manifests, *chain.from_iterable(files), *inner)):
            raise ValueError("a name that leads out of the store")
        parcel = Parcel(manifests=manifests, references=references)
        return parcel if set(_contents(parcel).values()) <= set(remote.names("files")) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AssetError(f"parcels/{key}.json at {remote.shown} is damaged; delete it and launch again") from None


def chunks_at(remote: Remote, parcel: Parcel) -> Chunks:
    """Return how a parcel's files come from a remote folder."""
    contents = _contents(parcel)
    return lambda name, size: remote.read(f"files/{contents[name]}")


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


def _contents(parcel: Parcel) -> dict[str, str]:
    """Return the SHA-256 of all files of a parcel, by their names below the store."""
    hashes = {name: _hashes(_files(manifest)) for name, manifest in parcel.manifests.items()}
    return {f"{name}/{file}": content for name, files in hashes.items() for file, content in files.items()}


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
            "its worker starts again; if that does not help, it is damaged where it comes from"
        )


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
