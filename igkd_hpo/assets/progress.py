"""How long work tells how far it is; the commands show it as bars or lines, a library call may keep it silent."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Where the makers of assets report to."""

    def task(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A piece of work of `total` units; the callable advances it by a number of units."""
        ...

    def note(self, text: str) -> None:
        """One line that is good to know."""
        ...

    def warn(self, text: str) -> None:
        """One line that asks for attention."""
        ...


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: None

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
