"""Console that shows what is hidden in names from outside as text, and lets through what it styles and moves itself."""

import os
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from igkd_hpo.escaping import lines

_WHOLE = 10_000  # columns, which nothing fills: rich takes a pipe for a terminal of 80


class Console(rich.console.Console):
    """Console of rich whose texts hold no control characters; styles become such only after this.

    Where it writes to no terminal, lines are as long as they have to be, unless COLUMNS says how long they may be.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        given = "width" in options or os.environ.get("COLUMNS", "").isdigit()
        is_terminal = getattr(self.file, "isatty", bool)  # which a stream of somebody's own may lack
        if not (given or self.is_jupyter or is_terminal()):
            self.width = _WHOLE

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments, within a table's cell as well as at the top."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=lines(segment.text))
