"""Store of assets on disk: each a folder named by the hash of all that it depends on, made once, checked when opened.

assets/
  <kind>-<key>/            a finished asset: arrays, files and manifest.json
  <kind>-<key>.partial/    one being made, or left by a killed maker: the next maker goes on from it
  verified/                notes of the files that were read in full, by host
  references/              the asset of each request, so that readers need not look at the data
  locks/                   one file lock for each name
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import DTypeLike, NDArray

import igkd_hpo
from igkd_hpo.assets.files import require_space, sync_folder, writing
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.verified import note_verified, read_verified, state_of
from igkd_hpo.errors import AssetError, AssetMissing
from igkd_hpo.files import make_folder, replacing, sha256_of

Json = Mapping[str, Any]
"""Plain JSON values by name."""
Kind = Literal[
    "attention", "dataset", "layout", "logits", "maps", "step", "teacher", "teachers", "test-split", "weights"
]
"""Each kind of asset: `clean` knows for each which studies need it."""

MANIFEST = "manifest.json"
_ROWS = "rows.json"
_COPY_BYTES = 1 << 26  # 64 MiB at a time: large enough for any disk, small beside any memory


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def content_hash(value: object) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal; the order of keys does not count."""
    return hashlib.sha256(_canonical(value)).hexdigest()


@dataclass(frozen=True)
class Asset:
    """A finished asset: its folder, inputs, facts that its maker measured, and the SHA-256 of each file."""

    folder: Path
    inputs: Json
    facts: Json
    hashes: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Hash of the files' hashes: the same for the same content, wherever and whenever it was made."""
        return content_hash(self.hashes)

    def array(self, name: str) -> NDArray[Any]:
        """Open the array `name`, memory-mapped copy-on-write: processes share its pages, no write reaches the file."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]

    def read(self, name: str) -> bytes:
        """Read the file `name`."""
        return (self.folder / name).read_bytes()


class Table:
    """Arrays with one first axis, filled from row 0 on in chunks; rows that a killed maker appended are kept.

    A chunk counts only once it was flushed to the disk and the number of rows after it, so neither a kill nor a power
    cut at any moment makes a row count that was not written. The disk space is taken at the start, so that a disk too
    small is an error before the work, not after it.
    """

    def __init__(self, folder: Path, columns: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> None:
        self._folder = folder
        self._columns = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in columns.items()}
        self._description = {name: [dtype.str, list(shape)] for name, (dtype, shape) in self._columns.items()}
        self._rows, *others = [shape[0] for _, shape in self._columns.values()]
        assert all(rows == self._rows for rows in others), "columns differ in length"
        done = self._read_count()
        self.rows_done = done or 0
        if done is None:
            self._allocate()

    def _read_count(self) -> int | None:
        try:
            state = json.loads((self._folder / _ROWS).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        same = state["columns"] == self._description and all(self._path(name).exists() for name in self._columns)
        return int(state["done"]) if same else None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _allocate(self) -> None:
        (self._folder / _ROWS).unlink(missing_ok=True)
        for name, (dtype, shape) in self._columns.items():
            path = self._path(name)
            with writing(path):
                try:
                    with path.open("wb") as file:
                        _write_header(file, dtype, shape)
                        size = file.tell() + self._row_bytes(name) * self._rows
                        file.flush()
                        os.posix_fallocate(file.fileno(), 0, size)
                        os.fsync(file.fileno())
                except OSError:
                    path.unlink(missing_ok=True)
                    raise
        self._write_count(0)

    def _row_bytes(self, name: str) -> int:
        dtype, shape = self._columns[name]
        return dtype.itemsize * math.prod(shape[1:])

    def _write_count(self, done: int) -> None:
        path = self._folder / _ROWS
        with writing(path), replacing(path) as file:
            file.write(_canonical({"columns": self._description, "done": done}))
        self.rows_done = done

    def append(self, **chunks: NDArray[Any]) -> None:
        """Write the next rows of every column. Raises AssetError when the disk is full."""
        assert chunks.keys() == self._columns.keys(), "a chunk of every column, please"
        count = len(next(iter(chunks.values())))
        for name, chunk in chunks.items():
            dtype, shape = self._columns[name]
            assert chunk.shape == (count, *shape[1:]), f"{name} has shape {chunk.shape}"
            assert chunk.dtype == dtype, f"{name} has type {chunk.dtype}"
            path = self._path(name)
            with writing(path), path.open("r+b") as file:
                file.seek(path.stat().st_size - self._row_bytes(name) * (self._rows - self.rows_done))
                file.write(np.ascontiguousarray(chunk).data)
                file.flush()
                os.fsync(file.fileno())
        self._write_count(self.rows_done + count)

    def column(self, name: str) -> NDArray[Any]:
        """Open the array as it is on the disk, for reading."""
        return np.load(self._path(name), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class Draft:
    """An asset that is being made; `finished` is not None when it was made before."""

    def __init__(self, kind: Kind, inputs: Json, target: Path, *, finished: Asset | None) -> None:
        self._kind = kind
        self._inputs = inputs
        self._target = target
        self.finished = finished
        self.folder = target.with_name(f"{target.name}.partial")
        if finished is None:
            with writing(self.folder):
                self.folder.mkdir(exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, in one step. Raises AssetError when the disk is full."""
        path = self.folder / name
        with writing(path), replacing(path) as file:
            file.write(data)

    def read(self, name: str) -> bytes | None:
        """Read a file that an interrupted maker left; return None where there is none."""
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """Write the array `name`, in one step. Raises AssetError when the disk is full."""
        self.write_rows(name, array, np.arange(len(array)))

    def write_rows(self, name: str, source: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Write the array `name` = source[rows] in pieces, so that a memory-mapped source never is in memory whole."""
        path = self.folder / f"{name}.npy"
        at_once = max(1, _COPY_BYTES // max(1, source[:1].nbytes))
        with writing(path), replacing(path) as file:
            _write_header(file, source.dtype, (len(rows), *source.shape[1:]))
            for start in range(0, len(rows), at_once):
                file.write(np.ascontiguousarray(source[rows[start : start + at_once]]).data)

    def require_space(self, n_bytes: int) -> None:
        """Raise AssetError where the disk has no room for so much, what is there already included."""
        there = sum(path.stat().st_size for path in self.folder.iterdir())
        try:
            require_space(self.folder, n_bytes - there)
        except AssetError:
            with suppress(OSError):  # what an interrupted maker left stays
                self.folder.rmdir()
            raise

    def table(self, **columns: tuple[DTypeLike, tuple[int, ...]]) -> Table:
        """Return arrays to fill in chunks, by name: (type, shape), with an interrupted maker's rows."""
        return Table(self.folder, columns)

    def commit(self, facts: Json, *, drop: tuple[str, ...] = ()) -> Asset:
        """Make the draft an asset with these facts, and without the files `drop`, which only the making needed."""
        with writing(self.folder):
            for path in self.folder.iterdir():  # dot files are left by makers that were killed while they wrote
                if path.name in (_ROWS, MANIFEST, *drop) or path.name.startswith("."):
                    path.unlink()
        files = {
            path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.iterdir())
        }
        versions = {"igkd-hpo": igkd_hpo.__version__, "python": platform.python_version(), "numpy": np.__version__}
        manifest = {
            "kind": self._kind,
            "inputs": self._inputs,
            "facts": facts,
            "files": files,
            "versions": versions,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        sealed = {**manifest, "seal": content_hash(manifest)}
        self.write(MANIFEST, json.dumps(sealed, indent=1, sort_keys=True).encode())
        with writing(self._target):
            sync_folder(self.folder)
            self.folder.rename(self._target)
            sync_folder(self._target.parent)
        return _load(self._target)


class AssetStore:
    """All assets below one folder. Reading needs no lock and no permission to write.

    Args:
        in_full: check all files of opened assets, also those that were read on this host and not changed since.
    """

    def __init__(self, root: Path, *, in_full: bool = False) -> None:
        self.root = root
        self._in_full = in_full
        self.used: set[str] = set()
        """Manifests and references that were read so far, by their names below the folder."""

    def open(self, kind: Kind, inputs: Json) -> Asset:
        """Open the asset of these inputs, its checksums verified.

        Raises:
            AssetMissing: it was never made here.
            AssetError: it is damaged, or was made from other inputs; the message names the folder to delete.
        """
        return self._open(_name(kind, inputs))

    def _open(self, name: str) -> Asset:
        folder = self.root / name
        if not folder.is_dir():
            raise AssetMissing(f"no asset {folder}; make it with `igkd-hpo prepare STUDY`")
        with suppress(OSError):  # where nothing may be written, nothing is cleaned either
            os.utime(folder)  # `clean` leaves alone what was opened a moment ago, for a study that is not made yet
        asset = _load(folder)
        _verify(asset, in_full=self._in_full)
        self.used.add(f"{name}/{MANIFEST}")
        return asset

    def finished(self) -> list[Asset]:
        """Return all assets here, in the order of their names, their files unread; leave out damaged ones."""
        assets = []
        for folder in sorted(path for path in self.root.glob("*-*") if (path / MANIFEST).is_file()):
            with suppress(AssetError):
                assets.append(_load(folder))
        return assets

    @contextmanager
    def build(self, kind: Kind, inputs: Json, progress: Progress) -> Iterator[Draft]:
        """Yield a draft to fill and commit, under a lock: of two makers one waits, and then finds the asset finished.

        A block that ends without `commit` leaves the partial folder for the next maker. Raises AssetError when the
        folder cannot be written, or the asset is damaged.
        """
        name = _name(kind, inputs)
        with self.lock(name, progress, waiting_for=f"another process that is making {name}"):
            try:
                finished = self._open(name)
            except AssetMissing:
                finished = None
            yield Draft(kind, inputs, self.root / name, finished=finished)

    @contextmanager
    def lock(self, name: str, progress: Progress, *, waiting_for: str) -> Iterator[None]:
        """Hold the file lock `name`, which a holder that is killed releases at once."""
        path = self.root / "locks" / f"{name}.lock"
        with writing(path):
            make_folder(path.parent)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                progress.note(f"waiting for {waiting_for}")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def remember(self, kind: Kind, request: Json, asset: Asset) -> None:
        """Note that `request` led to `asset`, so that `recall` finds it without the data."""
        path = self._reference(kind, request)
        with writing(path):
            make_folder(path.parent)
            with replacing(path) as file:
                file.write(_canonical({"request": request, "asset": asset.folder.name}))

    def recall(self, kind: Kind, request: Json) -> Asset:
        """Open the asset that `request` last led to. Raises AssetMissing, AssetError."""
        path = self._reference(kind, request)
        try:
            name = str(json.loads(path.read_bytes())["asset"])
            self.used.add(str(path.relative_to(self.root)))
        except FileNotFoundError:
            raise AssetMissing(
                f"no {kind} was prepared under {self.root}; make it with `igkd-hpo prepare STUDY`"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise AssetError(f"{path} is damaged; delete it and run `igkd-hpo prepare STUDY` again") from None
        return self._open(name)

    def _reference(self, kind: Kind, request: Json) -> Path:
        return self.root / "references" / f"{_name(kind, request)}.json"


def _name(kind: Kind, inputs: Json) -> str:
    return f"{kind}-{content_hash({'kind': kind, 'inputs': inputs})[:16]}"


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn what reading an asset raises into an AssetError that names its folder."""
    try:
        yield
    except FileNotFoundError as error:
        raise _damaged(folder, f"{Path(str(error.filename)).name} is missing") from None
    except OSError as error:
        raise AssetError(f"cannot read asset {folder}: {error.strerror or error}; check its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(folder, f"{MANIFEST} cannot be read") from None


def _damaged(folder: Path, what: str) -> AssetError:
    return AssetError(f"asset {folder} is damaged ({what}); delete that folder and run again")


def _load(folder: Path) -> Asset:
    with _reading(folder):
        manifest = json.loads((folder / MANIFEST).read_bytes())
        seal = manifest.pop("seal")
        files = manifest["files"]
        asset = Asset(
            folder=folder,
            inputs=manifest["inputs"],
            facts=manifest["facts"],
            hashes={name: str(entry["sha256"]) for name, entry in files.items()},
        )
        if seal != content_hash(manifest):
            raise _damaged(folder, f"{MANIFEST} was changed")
        if folder.name != _name(manifest["kind"], manifest["inputs"]):
            raise AssetError(f"asset {folder} was made from other inputs than its name says; delete it and run again")
        return asset


def _verify(asset: Asset, *, in_full: bool) -> None:
    with _reading(asset.folder):
        states = {name: {"sha256": sha, "state": state_of(asset.folder / name)} for name, sha in asset.hashes.items()}
        noted = {} if in_full else read_verified(asset.folder)
        unread = [name for name, state in states.items() if noted.get(name) != state]
        for name in unread:
            if sha256_of(asset.folder / name) != asset.hashes[name]:
                raise _damaged(asset.folder, f"{name} was changed")
    if unread:
        note_verified(asset.folder, states)
