"""Processes forked from a server: what they get, how their ends are told, and who outlives whom."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import psutil
import pytest

from igkd_hpo.engines.local.fork_server import Command, Forked, ForkServer
from igkd_hpo.errors import IgkdError

PATIENCE = 60.0
READS_ITS_INPUT = ("prepare", "-")  # for as long as that stays open


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """One for the module: each start imports torch."""
    started = ForkServer()
    started.keep_running()
    yield started
    started.close()


@pytest.fixture
def fork(tmp_path: Path) -> Iterator[Callable[..., Forked]]:
    """Asks a server for a command; its words are in `out.txt` in the test's folder."""
    made: list[Forked] = []

    def ask(server: ForkServer, *arguments: str, stdin: int | None = None, **environment: str) -> Forked:
        command = Command(arguments=arguments, environment=os.environ | environment, folder=str(tmp_path))
        with (tmp_path / "out.txt").open("wb") as out, open(os.devnull, "rb") as nothing:
            made.append(
                server.fork(command, [nothing.fileno() if stdin is None else stdin, out.fileno(), out.fileno()])
            )
        return made[-1]

    yield ask
    for forked in made:
        forked.close(PATIENCE)


@pytest.fixture
def open_end() -> Iterator[int]:
    """The reading end of a pipe that nobody closes."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def take_in_until(forked: Forked, condition: Callable[[], bool]) -> None:
    while not condition():
        assert wait(forked.waitables(), PATIENCE) or forked.pid is None, "heard nothing"
        forked.take_in()


def begin(forked: Forked) -> int:
    take_in_until(forked, lambda: forked.pid is not None)
    assert forked.pid is not None
    return forked.pid


def end(forked: Forked) -> int | None:
    take_in_until(forked, lambda: forked.ended)
    return forked.exit_code


def test_a_command_has_descriptors_environment_folder_and_exit_code(
    server: ForkServer, fork: Callable[..., Forked], tmp_path: Path
) -> None:
    assert end(fork(server, "status", IGKD_HPO_STORAGE="sqlite:///nowhere.db")) == 2
    assert f"no database {tmp_path}/nowhere.db" in (tmp_path / "out.txt").read_text()
    assert end(fork(server, "--version")) == 0


def test_the_signal_that_ended_it_is_told(server: ForkServer, fork: Callable[..., Forked], open_end: int) -> None:
    forked = fork(server, *READS_ITS_INPUT, stdin=open_end)
    begin(forked)
    assert not forked.ended
    forked.send_signal(signal.SIGKILL)
    assert end(forked) == -signal.SIGKILL


def test_close_leaves_nothing_behind(server: ForkServer, fork: Callable[..., Forked], open_end: int) -> None:
    forked = fork(server, *READS_ITS_INPUT, stdin=open_end)
    handle = os.pidfd_open(begin(forked))
    forked.close(PATIENCE)
    assert select.select([handle], [], [], PATIENCE)[0]
    os.close(handle)


def test_an_inherited_server_is_asked_and_left_alone(server: ForkServer, fork: Callable[..., Forked]) -> None:
    inherited = ForkServer(os.dup(server.descriptor))
    assert end(fork(inherited, "--version")) == 0
    inherited.close()
    assert end(fork(server, "--version")) == 0


def test_a_killed_server_takes_nobody_along_and_every_request_is_served_by_the_next(
    server: ForkServer, fork: Callable[..., Forked], open_end: int
) -> None:
    forked = fork(server, *READS_ITS_INPUT, stdin=open_end)
    pid = begin(forked)
    assert server._process is not None
    server._process.kill()
    server._process.wait()
    # More than a socket lets wait while the next server imports torch.
    waiting = [fork(server, "--version") for _ in range(15)]
    assert [end(each) for each in waiting] == [0] * 15
    forked.take_in()
    assert not forked.ended
    assert psutil.pid_exists(pid)
    forked.send_signal(signal.SIGTERM)
    assert end(forked) is None, "nobody is left who could know"


def test_a_server_without_owner_leaves_and_ends_its_children(
    server: ForkServer, fork: Callable[..., Forked], open_end: int
) -> None:
    handle = os.pidfd_open(begin(fork(server, *READS_ITS_INPUT, stdin=open_end)))
    assert server._process is not None
    assert server._answers is not None
    server._requests.close()  # what the owner's end does, whatever ended it
    server._answers.close()
    assert server._process.wait(PATIENCE) == 0
    assert select.select([handle], [], [], PATIENCE)[0]
    os.close(handle)


def test_a_server_that_cannot_live_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    doomed = ForkServer()
    for _ in range(5):
        doomed.keep_running()
        assert doomed._process is not None
        doomed._process.wait(PATIENCE)
    with pytest.raises(IgkdError, match=r"ended 5 times in a row, the last time with exit code 1; does"):
        doomed.keep_running()
    doomed.close()
