"""Processes are told apart by more than their id."""

import subprocess
import sys
from dataclasses import replace

import pytest

from igkd_hpo.search.identity import identify, is_dead, kill, this_process


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


def test_processes_of_hosts_with_other_names_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_process()
    monkeypatch.setenv("IGKD_HPO_HOST", "rack-3")
    assert is_dead(here) is None
    named = this_process()
    assert named.host == "rack-3"
    assert is_dead(named) is False
