"""A trial that is made up: no process, no torch, no waiting."""

from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from typing import Any

from igkd_hpo.search.identity import ProcessIdentity, this_process
from igkd_hpo.trial.messages import Message


class MadeUpTrial:
    """Says one message at each look; then it lives on, or ends as told."""

    def __init__(
        self,
        messages: tuple[Message, ...],
        *,
        then: Callable[[], None] | None = None,
        ends: bool = False,
        killed_for_memory: bool = False,
    ) -> None:
        self._messages = list(messages)
        self._then = then
        self._ends = ends
        self._killed = killed_for_memory
        self._ready, self._writer = Pipe(duplex=False)
        self._writer.send_bytes(b"x")  # there is always something to look at
        self.process: ProcessIdentity | None = this_process()
        self.closed = False

    @property
    def identity(self) -> ProcessIdentity | None:
        return self.process

    @property
    def ended(self) -> bool:
        return self._ends and not self._messages

    @property
    def killed_for_memory(self) -> bool:
        return self._killed and not self._messages

    def waitables(self) -> list[Any]:
        return [self._ready]

    def messages(self) -> Iterator[Message]:
        if self._messages:
            yield self._messages.pop(0)
        elif self._then is not None:
            self._then()

    def describe_end(self) -> str:
        return "the made-up trial ended"

    def close(self) -> None:
        self.closed = True
        self._ready.close()
        self._writer.close()
