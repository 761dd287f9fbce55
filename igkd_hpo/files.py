"""Write files in one step, so that a reader sees the old content or the new one; hash, open and make what is asked."""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from igkd_hpo.errors import UsageError


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return a path that a person wrote, in a flag, a variable, a URL or a study file, with its `~` expanded.

    Shells expand `~` only at the beginning of a word: not in --storage=sqlite:///~/x.db, nor in a compose file.
    Raises UsageError: nobody has the home folder that it begins with.
    """
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        advice = f"write the folder out, or ./{path} where that is its name"
        raise UsageError(f"{path} begins with a home folder that is not known here; {advice}") from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path`, flushed to the disk, when the block ends well. Raises OSError."""
    # No process id: containers that share a folder have the same ones, and write the same files.
    temporary = path.with_name(f".{path.name}.{secrets.randbits(63)}")
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


def write_output(path: Path, content: bytes) -> bool:
    """Write what a person asked for to where they said, a device or a pipe included. Raises UsageError.

    Returns whether a file was there before.

    A file is replaced in one step, and where the path is a link, the file that it leads to: /dev/stdout and /dev/null
    stay what they are. Files of ours, below `storage/`, are written by the other functions, which follow no link.
    """
    try:
        replaced = path.is_file()
        if path.exists() and not replaced:
            with path.open("wb") as file:
                file.write(content)
        else:
            write_bytes(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; give another place with -o") from error
    return replaced


def check_output(path: Path, *, example: str) -> None:
    """Raise UsageError where a file cannot be written because its path is a folder, or its folder is not there."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file with -o, for example {path / example}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}; make it, or give another place with -o")


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


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, which could wait for ever, a device or a socket is refused.

    Raises OSError, with EINVAL for what is no regular file.
    """
    _require_regular(path, path.stat().st_mode)  # before it is opened: opening alone does things to some devices
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)  # what was opened, not what had its name before
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{kind_of_file(mode)}, no regular file", str(path))


def kind_of_file(mode: int) -> str:
    """Say what a file is that is no regular one, by its mode: `a pipe`."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
