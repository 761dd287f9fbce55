"""Makers of assets: what living processes are making below a folder just now, seen by their locks."""

import fcntl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from igkd_hpo.assets.store import Kind

_WORK: Mapping[Kind, str] = {  # the last steps of a study first: teachers are asked again while maps are made
    "maps": "makes maps",
    "attention": "asks the teacher",
    "logits": "asks the teacher",
    "teachers": "asks the teacher",
    "teacher": "trains the teacher",
    "weights": "reads weights",
    "dataset": "reads images",
}


def work_in(assets: Path) -> str | None:
    """Say what a living process does for the assets below a folder: `trains the teacher`; None where there is none.

    Nothing is written, and nobody has to wait: a maker holds the lock of its name as long as it lives, also one of
    another host, and leaves its partial folder where it is killed.
    """
    for kind, work in _WORK.items():
        if any(_is_held(assets / "locks" / f"{folder.stem}.lock") for folder in assets.glob(f"{kind}-*.partial")):
            return work
    return None


def _is_held(lock: Path) -> bool:
    with suppress(OSError), lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which closing lets go
        except BlockingIOError:
            return True
    return False
