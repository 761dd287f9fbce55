"""Processes are told apart by more than their id."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from igkd_hpo.search.identity import ProcessIdentity, identify, is_dead, kill, this_process
from tests.fixtures.rights import as_anybody


def test_a_process_lives_until_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = identify(process.pid)
        assert identity is not None
        assert is_dead(identity) is False
        assert kill(identity)
        assert process.wait(10) == -9
    assert is_dead(identity) is True
    assert identify(process.pid) is None
    assert not kill(identity)


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        identity = identify(process.pid)
        while identity is not None and is_dead(identity) is False:
            pass
        assert process.returncode is None  # nobody has waited for it yet
        assert identify(process.pid) is None


def test_another_process_with_the_same_id_is_another_process() -> None:
    later = replace(this_process(), start_time=this_process().start_time + 1)
    assert is_dead(later) is True
    assert not kill(later)


def test_nothing_is_said_about_processes_of_other_hosts() -> None:
    away = replace(this_process(), boot_id="another boot")
    assert is_dead(away) is None
    assert not kill(away)


def test_a_process_may_have_any_name() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z (1', 0, 0, 0); print('named', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        before = identify(process.pid)
        assert process.stdout.readline() == "named\n"
        assert before is not None
        assert identify(process.pid) == before
        process.kill()


@pytest.fixture
def anothers() -> Iterator[ProcessIdentity]:
    """A process, in place of another user's: no test has two users."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = identify(process.pid)
        assert identity is not None
        yield identity


def refuse(*_: object) -> None:
    raise PermissionError


def test_another_users_process_is_left_alone(anothers: ProcessIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igkd_hpo.search.identity.signal.pidfd_send_signal", refuse)
    assert kill(anothers) is None
    assert is_dead(anothers) is False


@pytest.mark.parametrize("hidden", ["its folder", "what is in it"])
def test_a_process_that_is_hidden_is_not_taken_for_dead(
    anothers: ProcessIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """As /proc looks to other users where it is mounted with hidepid=2, and with hidepid=1."""
    for name in ("sys", "self"):
        (tmp_path / name).symlink_to(f"/proc/{name}")
    if hidden == "what is in it":
        (tmp_path / str(anothers.pid)).mkdir(mode=0)
    monkeypatch.setattr("igkd_hpo.search.identity._PROC", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("igkd_hpo.search.identity.os.kill", refuse)
        assert as_anybody(lambda: is_dead(anothers)) is None
        assert as_anybody(lambda: kill(anothers)) is False
        assert as_anybody(lambda: identify(anothers.pid)) is None
    assert is_dead(replace(anothers, pid=2**22 + 1)) is True, "no process has this id"


def test_processes_of_hosts_with_other_names_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_process()
    monkeypatch.setenv("IGKD_HPO_HOST", "rack-3")
    assert is_dead(here) is None
    named = this_process()
    assert named.host == "rack-3"
    assert is_dead(named) is False
