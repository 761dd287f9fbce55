"""Processes forked from a server: what they get, how their ends are told, and who outlives whom."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil
import pytest

from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import IgkdError
from tests.engines.forked import answer, leave, loaded, wait_for_end
from tests.fixtures.forking import own_fork_servers

PATIENCE = 60.0
BESIDE = ("optuna", "select", "torchvision")

Fork = Callable[[ForkServer, Callable[[Any, Connection], None], Any], Child]


@pytest.fixture(scope="module", autouse=True)
def each_its_own() -> Iterator[None]:
    with own_fork_servers():
        yield


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """One for the module, for each start imports torch, in a folder with files that no server may import."""
    folder = tmp_path_factory.mktemp("beside")
    for name in BESIDE:
        (folder / f"{name}.py").write_text("raise SystemExit(99)")
    with pytest.MonkeyPatch.context() as patched:  # the working directory is not on a server's path
        patched.setenv("PYTHONPATH", str(repository), prepend=os.pathsep)
        patched.setenv("OPENBLAS_NUM_THREADS", "2")  # as somebody's shell has it
        started = ForkServer()
        with chdir(folder):
            started.keep_running()
        yield started
        started.close()


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Asks a server for a process; what is left of it is ended."""
    made: list[Child] = []

    def ask(server: ForkServer, function: Callable[[Any, Connection], None], argument: Any) -> Child:
        made.append(Child(server, function, argument))
        return made[-1]

    yield ask
    for child in made:
        child.close()


def take_in_until(child: Child, condition: Callable[[], bool]) -> list[Any]:
    """Everything that it says until then."""
    said = list(child.messages())
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "heard nothing"
        wait(child.waitables(), 0.5)  # a server that has ended is started again by whoever looks
        said += child.messages()
    return said


def begin(child: Child) -> int:
    take_in_until(child, lambda: child.identity is not None)
    assert child.identity is not None
    return child.identity.pid


def end(child: Child) -> int | None:
    take_in_until(child, lambda: child.ended)
    return child.exit_code


def test_a_process_has_its_argument_and_its_exit_code(server: ForkServer, fork: Fork) -> None:
    child = fork(server, answer, {"a": 1})
    assert take_in_until(child, lambda: child.ended) == [({"a": 1}, "1")]
    assert child.exit_code == 0
    assert server.pid is not None
    assert psutil.Process(server.pid).num_threads() == 1, "a fork has no other threads, and waits for their locks"
    assert end(fork(server, leave, 3)) == 3


def test_the_signal_that_ended_it_is_told(server: ForkServer, fork: Fork) -> None:
    forked = fork(server, wait_for_end, None)
    begin(forked)
    assert not forked.ended
    forked.send_signal(signal.SIGKILL)
    assert end(forked) == -signal.SIGKILL


def test_close_leaves_nothing_behind(server: ForkServer, fork: Fork) -> None:
    forked = fork(server, wait_for_end, None)
    handle = os.pidfd_open(begin(forked))
    forked.close()
    assert select.select([handle], [], [], PATIENCE)[0]
    os.close(handle)


def test_an_inherited_server_is_asked_and_left_alone(server: ForkServer, fork: Fork) -> None:
    inherited = ForkServer(os.dup(server.descriptor))
    assert end(fork(inherited, leave, 0)) == 0
    inherited.close()
    assert end(fork(server, leave, 0)) == 0


def test_a_file_beside_the_user_is_not_imported(server: ForkServer, fork: Fork) -> None:
    assert "" not in os.environ["PYTHONPATH"].split(os.pathsep)
    assert end(fork(server, leave, 0)) == 0
    assert server._process is not None
    beside = Path(f"/proc/{server._process.pid}/cwd")  # not of another one, which was started when this had ended
    assert {path.stem for path in beside.glob("*.py")} == set(BESIDE)


def test_a_killed_server_takes_nobody_along_and_every_request_is_served_by_the_next(
    server: ForkServer, fork: Fork
) -> None:
    forked = fork(server, wait_for_end, None)
    pid = begin(forked)
    assert server._process is not None
    server._process.kill()
    server._process.wait()
    # More than a socket lets wait while the next server imports torch.
    waiting = [fork(server, leave, 0) for _ in range(15)]
    assert [end(each) for each in waiting] == [0] * 15
    list(forked.messages())
    assert not forked.ended
    assert psutil.pid_exists(pid)
    forked.send_signal(signal.SIGTERM)
    assert end(forked) is None, "nobody is left who could know"


@pytest.mark.parametrize("module", ["igkd_hpo.trial.attempt", "torch._dynamo", "torchvision.models"])
def test_what_every_trial_needs_is_imported_before_it_is_forked(server: ForkServer, fork: Fork, module: str) -> None:
    child = fork(server, loaded, module)
    assert take_in_until(child, lambda: child.ended) == [True]


def test_a_module_is_imported_once_for_all_that_follow(server: ForkServer, fork: Fork) -> None:
    server.import_too("no_such_module")
    server.import_too("this")  # the Zen of Python, which nothing else imports
    child = fork(server, loaded, "this")
    said = take_in_until(child, lambda: child.ended)
    assert said == [True]


def test_a_server_without_owner_leaves_and_ends_its_children(server: ForkServer, fork: Fork) -> None:
    handle = os.pidfd_open(begin(fork(server, wait_for_end, None)))
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
    with pytest.raises(IgkdError, match=r" 5 times .* exit code 1\b"):
        doomed.keep_running()
    doomed.close()
