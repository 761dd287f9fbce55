"""How far long work is, for people who look at it."""

import io

import pytest
from rich import progress as rich_progress
from rich.console import Console

from igkd_hpo.terminal.progress import BarProgress, LineProgress


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_a_remark_that_two_readers_of_the_same_images_have_is_told_once(kind: str) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80)
    progress = LineProgress(console) if kind == "lines" else BarProgress(rich_progress.Progress(console=console))
    for size in (64, 96):
        with progress.task("decoding images", 1) as advance:
            advance(1)
        progress.note(f"images of {size} pixels")
        progress.warn("1 HEIC file left out")
        progress.note("maps of 8 steps")
    lines = shown.getvalue().splitlines()
    assert [line for line in lines if "decoding" not in line] == [
        "images of 64 pixels",
        "warning: 1 HEIC file left out",
        "maps of 8 steps",
        "images of 96 pixels",
    ]
    if kind == "lines":
        assert lines.count("decoding images …") == 2
