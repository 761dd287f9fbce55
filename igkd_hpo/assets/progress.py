"""Progress of long work; the commands show it as bars or lines, a library call may keep it silent."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receiver of the progress of long work."""

    def task(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Begin a piece of work of `total` units; the callable advances it by a number of units."""
        ...

    def note(self, text: str) -> None:
        """Tell one line that is good to know."""
        ...

    def warn(self, text: str) -> None:
        """Tell one line that asks for attention."""
        ...


class SilentProgress:
    """Progress that is not shown."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: None

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
