"""Show something that changes: in one place on a terminal or in a notebook, in plain lines elsewhere."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any, Self

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from igkd_hpo.escaping import one_line
from igkd_hpo.terminal.console import Console

_NOTEBOOK_COLUMNS, _NOTEBOOK_LINES = 100, 60
_NOTEBOOK_FORMAT = '<pre style="line-height:1.25;font-family:monospace">{code}</pre>'

Draw = Callable[[int, int], RenderableType]
"""Function that draws on so many columns and lines."""


class Screen:
    """Context manager of a place to draw; where `redraws` is false, only `say` shows anything.

    Args:
        transient: erase the last drawing in the end.
    """

    def __init__(self, console: Console, *, transient: bool) -> None:
        self._console = console
        self._notebook = _Notebook() if console.is_jupyter else None
        self._live: Live | None = None
        if self._notebook is None and _can_redraw(console):
            # Standard output is for data: rich would send it to this console.
            self._live = Live(console=console, auto_refresh=False, transient=transient, redirect_stdout=False)
        self.redraws = self._live is not None or self._notebook is not None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, draw: Draw) -> None:
        """Draw in place of the last drawing."""
        if self._live is not None:
            self._live.update(draw(self._console.width, self._console.height - 1), refresh=True)
        elif self._notebook is not None:
            self._notebook.show(draw)

    def say(self, text: str) -> None:
        """Print a line that stays: whole where lines go into a file, cut at the edge of a terminal."""
        if self._live is not None:
            self._console.print(Text(one_line(text)), no_wrap=True, overflow="ellipsis", highlight=False)
        else:
            # Not through the console's styles: FORCE_COLOR would put codes into a log, a notebook gets HTML for each.
            file = sys.stdout if self._notebook is not None else self._console.file
            file.write(one_line(text) + "\n")
            file.flush()


class _Notebook:
    """An output of a notebook's cell, replaced each time; IPython is installed, for it runs the cell."""

    def __init__(self) -> None:
        self._output: Any = None

    def show(self, draw: Draw) -> None:
        from IPython.display import HTML, display

        width = _NOTEBOOK_COLUMNS
        page = Console(record=True, file=io.StringIO(), width=width, force_terminal=True, force_jupyter=False)
        page.print(draw(_NOTEBOOK_COLUMNS, _NOTEBOOK_LINES))
        html = HTML(page.export_html(inline_styles=True, code_format=_NOTEBOOK_FORMAT))
        if self._output is None:
            self._output = display(html, display_id=True)
        else:
            self._output.update(html)


def _can_redraw(console: Console) -> bool:
    """Tell whether the cursor can be moved on this console, and the blocks of a curve be written.

    FORCE_COLOR makes a terminal of a log file, as far as rich is concerned. `!igkd-hpo` in a notebook has a terminal,
    of which the notebook shows every line that was ever drawn; Jupyter marks its kernels' children with JPY_PARENT_PID.
    """
    return (
        console.is_terminal
        and not console.is_dumb_terminal
        and console.file.isatty()
        and console.encoding.startswith("utf")
        and "JPY_PARENT_PID" not in os.environ
    )
