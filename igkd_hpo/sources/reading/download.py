"""Downloads that are there as a whole or not at all, whoever is killed meanwhile."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from igkd_hpo.errors import DataError
from igkd_hpo.files import make_folder
from igkd_hpo.names import accept_name
from igkd_hpo.sources import Workplace

_Opened = TypeVar("_Opened")


def open_or_download(
    name: str, root: Path, open_in: Callable[[Path, bool], _Opened], *, advice: str, place: Workplace
) -> _Opened:
    """Return what `open_in` opens in `root`; where that fails, after a download beside it, which is then moved there.

    A library that looks whether a folder is there takes one that a killed download left for the whole: so nothing is
    downloaded to `root` itself, and what a killed download left beside it is thrown away.

    Args:
        name: of the data set, for messages and file names.
        open_in: takes a folder, and whether it may download to there; raises any Exception where nothing can be opened.
        advice: what to do where there is no network.

    Raises:
        DataError: it is not there, and cannot be downloaded.
    """
    plain = name.replace("/", "-")
    shown = accept_name(str(root))
    with place.lock(f"download-{plain}", waiting_for=f"another process that is downloading {name}"):
        try:
            return open_in(root, False)
        except Exception:  # as many kinds as there are libraries and formats
            place.note(f"downloading {name} to {shown}")
        fresh = root / f".{plain}.download"
        try:
            make_folder(root)
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            open_in(fresh, True)
            _move_into(root, fresh)
            return open_in(root, False)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                advice = "free space or make the folder writable, then run again"
            reason = " ".join(str(error).split()) or type(error).__name__  # some name each address on a line of its own
            raise DataError(
                f"{name} is not (whole) in {shown}, and could not be downloaded ({reason}); {advice}"
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _move_into(root: Path, fresh: Path) -> None:
    """Move everything from one folder to the other, each in one step; what had its name there gets another one."""
    for path in sorted(fresh.iterdir(), key=lambda path: (path.is_file(), path.name)):
        target, number = root / path.name, 0
        while target.exists() and number < 1000:
            number += 1
            aside = root / f"{path.name}.incomplete-{number}"
            if not aside.exists():
                target.rename(aside)
        os.replace(path, target)
