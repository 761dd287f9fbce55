"""Define every error that the project raises for people, with the exit code that it ends a command with.

    IgkdError                1  something failed while running
    ├── UsageError           2  a wrong flag, name or combination
    │   ├── StudyFileError   2  the study file is wrong, or is not the one the study was created from
    │   └── StudyUnusable    2  a study in the database is damaged, or of a version that this one cannot read
    ├── DataError            2  the images, the split or a checkpoint cannot be used as given
    ├── NoCompletedTrial     3  the study ended, and no trial completed
    ├── StorageError         4  the database cannot be reached or used
    ├── AssetError           1  a cached asset is damaged, or cannot be written
    │   └── AssetMissing     1  an asset was never made here
    ├── TeacherError         1  the teacher is not fit to teach
    └── StudyStopped         1  the study stopped early: too many failures in a row
    Interrupted    129, 130, 143  a signal ended the work in order; a KeyboardInterrupt, for nothing failed

A message is one line (a study file's faults: one line each), names the value at fault, and says what to do about it.
"""

import difflib
from collections.abc import Iterable
from enum import IntEnum

from igkd_hpo.escaping import one_line

_MOST_NAMED = 12


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_COMPLETED_TRIAL = 3
    STORAGE = 4
    DOCTOR = 5
    HANGUP = 129  # 128 + SIGHUP
    INTERRUPTED = 130  # 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM

    @classmethod
    def after(cls, signal: int) -> "ExitCode":
        """Return the code of a command that ended in order after this signal: 128 and its number, as shells have it."""
        return cls(128 + signal)


class IgkdError(Exception):
    """Base class of all errors meant for people. Each argument is one line, whatever names from outside stand in it."""

    exit_code: ExitCode = ExitCode.FAILED

    def __str__(self) -> str:
        """Return the message."""
        return "\n".join(one_line(str(line)) for line in self.args)


class UsageError(IgkdError):
    """A flag, a name or a combination of them that cannot work."""

    exit_code = ExitCode.USAGE


class StudyFileError(UsageError):
    """A study file that is wrong, or differs from the one that the study was created from."""


class StudyUnusable(UsageError):
    """A study in the database that is damaged, or of a version that this one cannot read; others are not affected."""


class DataError(IgkdError):
    """Images, splits or checkpoints that cannot be used as given."""

    exit_code = ExitCode.USAGE


class NoCompletedTrial(IgkdError):
    """A study without a COMPLETE trial."""

    exit_code = ExitCode.NO_COMPLETED_TRIAL


class StorageError(IgkdError):
    """A database that cannot be reached, or refuses a request."""

    exit_code = ExitCode.STORAGE


class AssetError(IgkdError):
    """A cached asset that is damaged or cannot be written."""


class AssetMissing(AssetError):
    """An asset that was never made on this machine."""


class TeacherError(IgkdError):
    """A teacher that is not fit to teach: it learned nothing, or is not the study's teacher."""


class StudyStopped(IgkdError):
    """A study that stopped before its end: the last `max_failures` trials all failed, or see `StopOrdered`."""


class StopOrdered(StudyStopped):
    """A study that somebody stopped, which is no failure; a command says so in one line.

    Args:
        message: how far the study was, and how to go on.
        completed: whether any trial had completed.
    """

    def __init__(self, message: str, *, completed: bool) -> None:
        super().__init__(message)
        self.exit_code = ExitCode.DONE if completed else ExitCode.NO_COMPLETED_TRIAL


class Interrupted(KeyboardInterrupt):
    """An orderly end by Ctrl-C or SIGTERM, after which everything can be resumed.

    Args:
        message: how far the work was, and how to go on.
        signal: the number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean X?)`, to put behind an unknown name; empty where none of the choices is near."""
    near = nearest(name, choices)
    return f" (did you mean {near}?)" if near else ""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that differs from a name by a few letters or by case, or of which the name is cut short.

    Of several near ones, the first that the name is the beginning of: for `lcnet_05` that is `lcnet_050`.
    """
    names = {other.lower(): other for other in reversed(list(choices))}
    given = name.lower()
    close = difflib.get_close_matches(given, names, n=_MOST_NAMED)
    if not close and len(given) >= 3:
        close = [other for other in names if other.startswith(given)][-1:]
    return names[max(close, key=lambda other: other.startswith(given))] if close else None  # the first of equals


def near_or_all(name: str, choices: Iterable[str]) -> str:
    """Suggest the near name, else list all there are: ` (there are: a, b)`; empty where there is none."""
    names = list(dict.fromkeys(choices))
    if (near := did_you_mean(name, names)) or not names:
        return near
    more = f", … and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f" (there are: {', '.join(names[:_MOST_NAMED])}{more})"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its class where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
