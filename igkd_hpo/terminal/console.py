"""Console that shows what is hidden in names from outside as text, and lets through what it styles and moves itself."""

from collections.abc import Iterable

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from igkd_hpo.escaping import lines


class Console(rich.console.Console):
    """Console of rich whose texts hold no control characters; styles become such only after this."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments, within a table's cell as well as at the top."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=lines(segment.text))
