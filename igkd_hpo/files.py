"""Write files in one step, so that a reader sees the old content or the new one, hash them, and make their folders."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path`, flushed to the disk, when the block ends well. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace a file in one step. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step by a text in UTF-8. Raises OSError."""
    write_bytes(path, text.encode())


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for those who may write where it is made. Raises OSError.

    That is the owner alone in a folder with the usual permissions, and the group too in one that a group shares: what
    is below holds other people's images, and a database of everything. The umask takes away further rights.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=_writers_of(folder.parent), exist_ok=True)


def create_file(path: Path) -> None:
    """Create an empty file, if there is none, for those whom `make_folder` makes a folder for. Raises OSError.

    One that is there is not even opened: to close it would drop the locks that SQLite holds on it in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _writers_of(path.parent) & 0o666))


def _writers_of(folder: Path) -> int:
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:  # /tmp: everybody's, and nobody's to look into what others put there
        return 0o700
    return 0o700 | (0o070 if mode & stat.S_IWGRP else 0) | (0o007 if mode & stat.S_IWOTH else 0)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
