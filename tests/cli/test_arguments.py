"""What several commands print."""

import sys

import pytest

from igkd_hpo.cli.arguments import print_text

TEXT = "best: trial 2, 85.8 % validation accuracy\n  temperature 4.943, alpha 0.07596, learning_rate 0.3989\nend"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_lines_that_are_broken_between_words(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "30")
    print_text(TEXT)
    said = capsys.readouterr().out
    if not terminal:
        assert said == TEXT + "\n"
        return
    lines = said.splitlines()
    assert max(map(len, lines)) <= 30
    assert lines[2:] == ["  temperature 4.943, alpha", "    0.07596, learning_rate", "    0.3989", "end"]
