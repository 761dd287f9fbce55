"""Show how far work is: bars on a terminal, plain lines elsewhere, or nothing; always on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as rich_progress

from igkd_hpo.assets.progress import Progress as AnyProgress
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.escaping import one_line
from igkd_hpo.terminal.console import Console
from igkd_hpo.words import duration

_LINE_SECONDS = 15.0


def make_console(shown: bool) -> Console:
    """Make the console of messages: standard error, or nowhere."""
    return Console(stderr=True) if shown else Console(quiet=True, force_terminal=False)


def tell(console: Console, text: str) -> None:
    """Print one line for people; brackets in it are brackets."""
    console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def make_progress(shown: bool = True) -> Iterator[AnyProgress]:
    """Yield the progress that fits where standard error goes."""
    console = make_console(shown)
    if not shown:
        yield SilentProgress()
    elif not console.is_terminal or console.is_dumb_terminal:
        yield LineProgress(console)
    else:
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(),
        )
        with rich_progress.Progress(*columns, console=console) as bars:
            yield BarProgress(bars)


class _Once:
    """Memory of what was told: who looks at the same images again, or at another size of them, has the same remarks."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def _is_new(self, text: str) -> bool:
        is_new = text not in self._told
        self._told.add(text)
        return is_new


class BarProgress(_Once):
    """A progress of one bar for each piece of work; each note and warning is told once."""

    def __init__(self, bars: rich_progress.Progress) -> None:
        super().__init__()
        self._bars = bars

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        task = self._bars.add_task(one_line(description), total=total)
        yield lambda count: self._bars.advance(task, count)
        self._bars.update(task, completed=total)

    def note(self, text: str) -> None:
        self._tell(text)

    def warn(self, text: str) -> None:
        self._tell(f"warning: {text}", style="yellow")

    def _tell(self, text: str, style: str | None = None) -> None:
        if self._is_new(text):
            self._bars.console.print(one_line(text), style=style, highlight=False, markup=False)


class LineProgress(_Once):
    """A progress of lines: one when a piece of work begins, one every 15 seconds, and one when it ends.

    Each note and warning is told once.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        begun = said = time.monotonic()
        done = 0
        tell(self._console, f"{description} …")

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            now = time.monotonic()
            if now - said >= _LINE_SECONDS and done < total:
                said = now
                left = (now - begun) / max(done, 1) * (total - done)
                tell(self._console, f"{description}: {done} of {total}, about {duration(left)} left")

        yield advance
        tell(self._console, f"{description}: done in {duration(time.monotonic() - begun)}")

    def note(self, text: str) -> None:
        if self._is_new(text):
            tell(self._console, text)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")
