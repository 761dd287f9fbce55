"""Locks by which trials share a device of this host, or one of them has it alone; they end with their holder.

A trial holds its device as long as its process lives: shared, as a rule; exclusively when an earlier attempt ran out
of memory beside others. A trial that waits to be alone holds the turn meanwhile, so that those that train come to an
end and no new one begins: else a busy device would never get quiet.
"""

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from igkd_hpo.files import make_folder

_POLL_SECONDS = 0.2


def hold_device(folder: Path, device: str, *, alone: bool, on_wait: Callable[[], None]) -> IO[bytes]:
    """Wait for the device, and hold it until the file returned is closed, at the latest when the process ends.

    Args:
        folder: of the locks; all processes of this host that share devices see it.
        device: a name that no other device of this host has; part of a file name.
        alone: no other process holds it or gets it.
        on_wait: called every fifth of a second while others hold it.
    """
    make_folder(folder)
    with (folder / f"{device}.turn").open("ab") as turn:
        _lock(turn, fcntl.LOCK_EX, on_wait)
        held = (folder / f"{device}.lock").open("ab")
        try:
            _lock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, on_wait)
        except BaseException:
            held.close()
            raise
    return held


def _lock(file: IO[bytes], how: int, on_wait: Callable[[], None]) -> None:
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            time.sleep(_POLL_SECONDS)
        else:
            return
