"""An attempt that was started somewhere, as its worker sees it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from igkd_hpo.search.identity import ProcessIdentity
from igkd_hpo.trial.messages import Message
from igkd_hpo.trial.task import AttemptTask


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The place where a worker trains.

    Args:
        number: from 0 on this host; spreads workers over GPUs.
        device: auto, cpu, cuda or cuda:N.
        threads: for torch in each trial.
    """

    number: int
    device: str
    threads: int


class RunningTrial(Protocol):
    """An attempt that was started: what it says, and how it is ended."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process that trains; None while it has not begun, and when it has already gone."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it has gone and everything it said was read."""
        ...

    @property
    def killed_for_memory(self) -> bool:
        """Whether the kernel most likely killed it for want of memory."""
        ...

    def waitables(self) -> list[Any]:
        """Return what becomes readable when there is something to take in."""
        ...

    def messages(self) -> Iterator[Message]:
        """Yield everything that has arrived by now. Raises IgkdError: it can never begin on this host."""
        ...

    def describe_end(self) -> str:
        """Return in words how it ended."""
        ...

    def close(self) -> None:
        """End it at once and let go of it; its checkpoint is whole at any moment."""
        ...


Start = Callable[[AttemptTask], RunningTrial]
"""Starts an attempt. Raises IgkdError: this host cannot."""
