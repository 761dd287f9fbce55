"""One check that fails fails the whole, and hides no other."""

import pytest

from tests.check import Failed, passes, run


def test_every_check_is_run_and_its_result_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise Failed("line 3 is too long")

    def break_down() -> None:
        raise KeyError("page")

    assert not passes({"lines": refuse, "pages": break_down}, {"tests": lambda: None})
    said = capsys.readouterr().out
    assert "line 3 is too long" in said
    assert "KeyError('page')" in said
    assert [line.split()[0] for line in said.splitlines() if " s  " in line] == ["FAILED", "FAILED", "ok"]
    assert said.endswith("failed: lines, pages\n")
    assert passes({"tests": lambda: None})


def test_a_command_that_fails_says_what_it_printed() -> None:
    assert run("echo", "fine") == "fine\n"
    with pytest.raises(Failed, match="no such luck"):
        run("sh", "-c", "echo no such luck >&2; exit 3")
