"""Notes of the asset files that were read in full on this host, so that each trial need not read all of them again.

20,000 images of 224 pixels take 5 s to hash. A file counts as unchanged while its size, times and inode are what they
were: a program can set the time of a change of content, but not the time of that setting.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from igkd_hpo.files import write_text
from igkd_hpo.settings import host_name

FOLDER = "verified"


def state_of(path: Path) -> list[int]:
    """Return size in bytes, inode, and the times of the last changes of content and of anything, in nanoseconds."""
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def read_verified(folder: Path) -> dict[str, Any]:
    """Read the notes on an asset's files by name: the SHA-256 of each, and its state before it was read."""
    try:
        noted = json.loads(_note(folder).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def note_verified(folder: Path, files: dict[str, Any]) -> None:
    """Write the notes for `read_verified`; where that is refused, every trial reads the files in full."""
    path = _note(folder)
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(files))


def _note(folder: Path) -> Path:
    return folder.parent / FOLDER / f"{folder.name}.{host_name().replace('/', '_')}.json"
