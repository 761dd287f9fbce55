"""A signal is something to wait on, in the main thread; elsewhere nothing changes."""

import os
import select
import signal
import threading

import pytest

from igkd_hpo.engines.signals import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        if signal.getsignal(number) is before:
            pytest.fail(f"{number.name} would end the process")
        os.kill(os.getpid(), number)
        assert select.select([stop.descriptor], [], [], 10) == ([stop.descriptor], [], [])
        assert stop.received == number
    assert signal.getsignal(number) is before


def test_a_hangup_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_the_programs_own_handlers_stay() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def enter() -> None:
        with StopSignal() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.received))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(before, None)]
