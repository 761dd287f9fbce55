"""Writing of an asset's files, with the operating system's refusals as AssetError."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igkd_hpo.errors import AssetError
from igkd_hpo.words import byte_size

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an AssetError that says what to do."""
    try:
        yield
    except OSError as error:
        advice = "free space, then run again: work already done is kept"
        if error.errno in _FORBIDDEN:
            advice = "make the folder writable, or start in another one"
        raise AssetError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise AssetError where the disk of a folder has not so much room."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise AssetError(
            f"cannot write {folder}: it would take {byte_size(n_bytes)}, and {byte_size(free)} are free; free space, "
            "or start in a folder on another disk"
        )


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
