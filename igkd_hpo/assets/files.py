"""Writing of an asset's files, with the operating system's refusals as AssetError."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igkd_hpo.errors import AssetError

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


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
