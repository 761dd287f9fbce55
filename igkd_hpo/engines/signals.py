"""Signals as something to wait on: a handler only notes what came, the loop acts."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last one comes when a terminal is closed


class StopSignal:
    """Context manager: SIGINT, SIGTERM and SIGHUP set `received` and make the descriptor readable.

    Old handlers come back in the end. SIGHUP stays ignored where it is, as under nohup. Python hands signals to the
    main thread alone. Entered in another thread, this one hears of none, and the program's own handlers stay.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.set(signal.Signals(number))

    def set(self, number: signal.Signals) -> None:
        """Do as if the signal had come; the first one counts."""
        if self.received is None:
            self.received = number
            os.write(self._writer, b"x")

    @property
    def descriptor(self) -> int:
        """To wait on: readable once a signal came, and from then on."""
        return self._reader
