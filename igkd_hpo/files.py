"""Write files in one step, so that a reader sees the old content or the new one; hash them; read people's paths."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
