"""Assets on disk: a folder named by the hash of all that it depends on, made once, checked whenever it is opened.

assets/
  <kind>-<key>/            a finished asset: arrays, files and manifest.json
  <kind>-<key>.partial/    one being made, or left by a killed maker: the next maker goes on from it
  references/              which asset an earlier run found for a request, so that readers need not look at the data
  locks/                   one file lock for each name
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import DTypeLike, NDArray

import igkd_hpo
from igkd_hpo.assets.progress import Progress
from igkd_hpo.errors import AssetError, AssetMissing
from igkd_hpo.files import replacing, sha256_of

Json = Mapping[str, Any]
"""Plain JSON values by name."""

_MANIFEST = "manifest.json"
_ROWS = "rows.json"
_COPY_BYTES = 1 << 26  # 64 MiB at a time: large enough for any disk, small beside any memory


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def content_hash(value: object) -> str:
    """SHA-256 of a JSON value, in hexadecimal; the order of keys does not count."""
    return hashlib.sha256(_canonical(value)).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an AssetError that says what to do."""
    try:
        yield
    except OSError as error:
        raise AssetError(
            f"cannot write {path}: {error.strerror or error}; free space or make the folder writable, "
            "then run again: work already done is kept"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Asset:
    """A finished asset.

    Args:
        folder: where its files are.
        inputs: what it was made from.
        facts: what its maker measured.
        sha256: hash of the hashes of its files: the same for the same content, wherever and whenever it was made.
    """

    folder: Path
    inputs: Json
    facts: Json
    sha256: str

    def array(self, name: str) -> NDArray[Any]:
        """The array `name`, memory-mapped copy-on-write: processes share its pages, and no write reaches the file."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`."""
        return (self.folder / name).read_bytes()


class Table:
    """Arrays with one first axis, filled from row 0 on in chunks; what a killed maker had appended is still there.

    A chunk counts only once it was flushed to the disk and the number of rows after it, so neither a kill nor a power
    cut at any moment makes a row count that was not written. The disk space is taken at the start: a disk too small
    is told before the work, not after it.
    """

    def __init__(self, folder: Path, columns: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> None:
        self._folder = folder
        self._dtypes = {name: np.dtype(dtype) for name, (dtype, _) in columns.items()}
        self._shapes = {name: shape for name, (_, shape) in columns.items()}
        self._description = {name: [self._dtypes[name].str, list(shape)] for name, shape in self._shapes.items()}
        self.rows = next(iter(self._shapes.values()))[0]
        assert all(shape[0] == self.rows for shape in self._shapes.values()), "columns differ in length"
        found = self._found()
        self.rows_done = found or 0
        if found is None:
            self._allocate()

    def _found(self) -> int | None:
        try:
            state = json.loads((self._folder / _ROWS).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        same = state["columns"] == self._description and all(self._path(name).exists() for name in self._shapes)
        return int(state["done"]) if same else None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _allocate(self) -> None:
        (self._folder / _ROWS).unlink(missing_ok=True)
        for name, shape in self._shapes.items():
            path = self._path(name)
            with writing(path):
                try:
                    with path.open("wb") as file:
                        _write_header(file, self._dtypes[name], shape)
                        size = file.tell() + self._row_bytes(name) * self.rows
                        file.flush()
                        os.posix_fallocate(file.fileno(), 0, size)
                        os.fsync(file.fileno())
                except OSError:
                    path.unlink(missing_ok=True)
                    raise
        self._count(0)

    def _row_bytes(self, name: str) -> int:
        return int(self._dtypes[name].itemsize * np.prod(self._shapes[name][1:], dtype=np.int64))

    def _count(self, done: int) -> None:
        path = self._folder / _ROWS
        with writing(path), replacing(path) as file:
            file.write(_canonical({"columns": self._description, "done": done}))
        self.rows_done = done

    def append(self, **chunks: NDArray[Any]) -> None:
        """Write the next rows of every column. Raises AssetError when the disk is full."""
        assert chunks.keys() == self._shapes.keys(), "a chunk of every column, please"
        count = len(next(iter(chunks.values())))
        for name, chunk in chunks.items():
            assert chunk.shape == (count, *self._shapes[name][1:]), f"{name} has shape {chunk.shape}"
            assert chunk.dtype == self._dtypes[name], f"{name} has type {chunk.dtype}"
            path = self._path(name)
            with writing(path), path.open("r+b") as file:
                start = path.stat().st_size - self._row_bytes(name) * (self.rows - self.rows_done)
                file.seek(start)
                file.write(np.ascontiguousarray(chunk).data)
                file.flush()
                os.fsync(file.fileno())
        self._count(self.rows_done + count)

    def column(self, name: str) -> NDArray[Any]:
        """The array as it is on the disk, for reading."""
        return np.load(self._path(name), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class Draft:
    """An asset being made. `finished` is not None when it needs no making."""

    def __init__(self, kind: str, inputs: Json, target: Path, *, finished: Asset | None) -> None:
        self._kind = kind
        self._inputs = inputs
        self._target = target
        self.finished = finished
        self.folder = target.with_name(f"{target.name}.partial")
        if finished is None:
            with writing(self.folder):
                self.folder.mkdir(exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """A whole file, in one step. Raises AssetError when the disk is full."""
        path = self.folder / name
        with writing(path), replacing(path) as file:
            file.write(data)

    def read(self, name: str) -> bytes | None:
        """A file that an earlier, interrupted maker left."""
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """The array `name`, in one step. Raises AssetError when the disk is full."""
        self.write_rows(name, array, np.arange(len(array)))

    def write_rows(self, name: str, source: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """The array `name` = source[rows], a piece at a time: a large memory-mapped source never is in memory whole."""
        path = self.folder / f"{name}.npy"
        at_once = max(1, _COPY_BYTES // max(1, source[:1].nbytes))
        with writing(path), replacing(path) as file:
            _write_header(file, source.dtype, (len(rows), *source.shape[1:]))
            for start in range(0, len(rows), at_once):
                file.write(np.ascontiguousarray(source[rows[start : start + at_once]]).data)

    def table(self, **columns: tuple[DTypeLike, tuple[int, ...]]) -> Table:
        """Arrays to fill in chunks, by name: (type, shape). Goes on from an interrupted maker's rows."""
        return Table(self.folder, columns)

    def commit(self, facts: Json, *, drop: tuple[str, ...] = ()) -> Asset:
        """Make it an asset: everything flushed, the manifest written, the folder renamed.

        Args:
            facts: JSON values that readers want beside the files.
            drop: files that only the making needed.
        """
        with writing(self.folder):
            for path in self.folder.iterdir():  # dot files are what a killed maker left of a write
                if path.name in (_ROWS, _MANIFEST, *drop) or path.name.startswith("."):
                    path.unlink()
        files = {
            path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.iterdir())
        }
        manifest = {
            "kind": self._kind,
            "inputs": self._inputs,
            "facts": facts,
            "files": files,
            "versions": {
                "igkd-hpo": igkd_hpo.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        sealed = {**manifest, "seal": content_hash(manifest)}
        self.write(_MANIFEST, json.dumps(sealed, indent=1, sort_keys=True).encode())
        with writing(self._target):
            _sync_folder(self.folder)
            self.folder.rename(self._target)
            _sync_folder(self._target.parent)
        return _load(self._target, verify=False)


class AssetStore:
    """All assets below one folder. Reading needs no lock and no permission to write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, kind: str, inputs: Json) -> Asset:
        """The asset made from these inputs, its checksums verified.

        Raises:
            AssetMissing: it was never made here.
            AssetError: it is damaged; the message names the folder to delete.
        """
        return self._open(self._name(kind, inputs))

    def _open(self, name: str) -> Asset:
        folder = self.root / name
        if not folder.is_dir():
            raise AssetMissing(f"no asset {folder}; make it with `igkd-hpo prepare STUDY`")
        return _load(folder, verify=True)

    @contextmanager
    def build(self, kind: str, inputs: Json, progress: Progress) -> Iterator[Draft]:
        """A draft to fill and commit, under a lock: of two makers one makes, and the other waits and finds it made.

        A block that ends without `commit` leaves the partial folder for the next maker. Raises AssetError when the
        folder cannot be written, or an asset is there and damaged.
        """
        name = self._name(kind, inputs)
        with self.lock(name, progress, waiting_for=f"another process that is making {name}"):
            try:
                finished = self._open(name)
            except AssetMissing:
                finished = None
            yield Draft(kind, inputs, self.root / name, finished=finished)

    @contextmanager
    def lock(self, name: str, progress: Progress, *, waiting_for: str) -> Iterator[None]:
        """Hold the file lock `name`; a killed holder lets go of it at once."""
        path = self.root / "locks" / f"{name}.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
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

    def remember(self, kind: str, request: Json, asset: Asset) -> None:
        """Note that `request` led to `asset`, so that `recall` finds it without looking at the data again."""
        path = self._reference(kind, request)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(_canonical({"request": request, "asset": asset.folder.name}))

    def recall(self, kind: str, request: Json) -> Asset:
        """The asset that `request` led to when it was last prepared. Raises AssetMissing, AssetError."""
        path = self._reference(kind, request)
        try:
            name = str(json.loads(path.read_bytes())["asset"])
        except FileNotFoundError:
            raise AssetMissing(
                f"no {kind} was prepared under {self.root}; make it with `igkd-hpo prepare STUDY`"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise AssetError(f"{path} is damaged; delete it and run `igkd-hpo prepare STUDY` again") from None
        return self._open(name)

    def _reference(self, kind: str, request: Json) -> Path:
        return self.root / "references" / f"{self._name(kind, request)}.json"

    @staticmethod
    def _name(kind: str, inputs: Json) -> str:
        return f"{kind}-{content_hash({'kind': kind, 'inputs': inputs})[:16]}"


def _load(folder: Path, *, verify: bool) -> Asset:
    def damaged(what: str) -> AssetError:
        return AssetError(f"asset {folder} is damaged ({what}); delete that folder and run again")

    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        seal = manifest.pop("seal")
        files = manifest["files"]
        asset = Asset(
            folder=folder,
            inputs=manifest["inputs"],
            facts=manifest["facts"],
            sha256=content_hash({name: entry["sha256"] for name, entry in files.items()}),
        )
        if seal != content_hash(manifest):
            raise damaged(f"{_MANIFEST} was changed")
        for name, entry in files.items() if verify else ():
            if (folder / name).stat().st_size != entry["bytes"] or sha256_of(folder / name) != entry["sha256"]:
                raise damaged(f"{name} was changed")
    except FileNotFoundError as error:
        raise damaged(f"{Path(str(error.filename)).name} is missing") from None
    except OSError as error:
        raise AssetError(f"cannot read asset {folder}: {error.strerror or error}; check its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged(f"{_MANIFEST} cannot be read") from None
    return asset
