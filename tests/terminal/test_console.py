"""The console where no terminal is: what goes into a file or a pipe loses nothing."""

import io

import pytest
from rich.table import Table

from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.status_board import status_board
from tests.terminal.studies import begun_study

LONG = "trial 4 without both " * 8


def printed(**options: object) -> list[str]:
    table = Table(box=None, pad_edge=False)
    table.add_column("arm")
    table.add_column("", no_wrap=True)
    table.add_row(LONG, "smallest")
    console = Console(file=io.StringIO(), **options)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_pipe_gets_whole_lines() -> None:
    _, row = printed()
    assert row.split() == [*LONG.split(), "smallest"]


def test_a_stream_that_knows_no_terminals_is_written_to() -> None:
    class Stream:
        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            pass

    assert Console(file=Stream()).width > 80


def test_columns_and_a_given_width_hold_for_a_pipe_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(map(len, printed(width=60))) <= 60
    monkeypatch.setenv("COLUMNS", "70")
    assert max(map(len, printed())) <= 70


def test_the_counts_of_a_study_are_whole_in_a_pipe() -> None:
    study = begun_study(name="photos-" * 20)
    console = Console(file=io.StringIO())
    console.print(status_board([study], console.width))
    assert isinstance(console.file, io.StringIO)
    assert "…" not in console.file.getvalue()
    assert "0 of 24" in console.file.getvalue()
