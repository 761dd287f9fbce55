"""What `launch` shows while it runs: on a terminal a line for each worker, elsewhere one plain line for each trial."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from igkd_hpo.search.study import Counts
from igkd_hpo.service.events import Event

HEARTBEAT_SECONDS = 30.0
REDRAW_SECONDS = 0.1  # 64 workers with epochs of a tenth of a second would redraw 640 times a second
_WORDS = {"complete": "complete", "pruned": "pruned", "fail": "failed", "given_back": "given back", "lost": "lost"}
_STYLES = {"complete": "green", "pruned": "yellow", "failed": "red", "database away": "red"}


@dataclass(frozen=True, kw_only=True)
class WorkerLine:
    """One worker, as its line shows it; what it does not have yet is None.

    Args:
        slot: of the worker on this host.
        state: in words: starting, training, waiting, database away, or how its last attempt ended.
        trial, attempt, control: what it trains.
        epoch: epochs finished.
        accuracy: newest validation accuracy, a fraction.
        images_per_second: training speed.
        device: for example cpu or cuda:0.
    """

    slot: int
    state: str = "starting"
    trial: int | None = None
    attempt: int = 1
    control: str | None = None
    epoch: int = 0
    accuracy: float | None = None
    images_per_second: float | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best COMPLETE trial so far; `accuracy` is a fraction."""

    accuracy: float
    trial: int
    control: str | None = None

    def __str__(self) -> str:
        return f"{self.accuracy:.2%} ({_trial(self.trial, self.control)})"


@dataclass(frozen=True, kw_only=True)
class LiveState:
    """All that the view shows.

    Args:
        total: COMPLETE plus PRUNED trials to reach.
        epochs: of a trial that is not pruned.
        elapsed, left: seconds; `left` is None as long as nothing was measured.
    """

    total: int
    epochs: int
    workers: tuple[WorkerLine, ...] = ()
    counts: Counts = field(default_factory=lambda: Counts(complete=0, pruned=0, fail=0, running=0, waiting=0))
    best: Best | None = None
    elapsed: float = 0.0
    left: float | None = None


class LiveView:
    """Context manager that shows a running study on `console`.

    Args:
        console: where to; a line for each worker when it is a terminal, plain lines otherwise.
        total: COMPLETE plus PRUNED trials to reach.
        epochs: of a trial that is not pruned.
        clock: seconds on a clock that never goes back.
    """

    def __init__(
        self, console: Console, total: int, epochs: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._state = LiveState(total=total, epochs=epochs)
        self._begun = self._drawn = self._said = clock()
        self._claimed: dict[int, float] = {}  # when each busy slot claimed its trial
        self._resumed: dict[int, int] = {}  # the first epoch that each busy slot told of
        self._durations: list[float] = []
        drawn = console.is_terminal and not console.is_dumb_terminal
        # Standard output is for data: rich would send it to this console.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) if drawn else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, line: WorkerLine) -> None:
        """Show a worker's new line."""
        others = [worker for worker in self._state.workers if worker.slot != line.slot]
        workers = tuple(sorted([*others, line], key=lambda worker: worker.slot))
        self._state = replace(self._state, workers=workers)
        self._show()

    def counts(self, counts: Counts, total: int) -> None:
        """Show the study's trials by state, and the total, which another launch may have changed."""
        self._state = replace(self._state, counts=counts, total=total)
        self._show()

    def best(self, accuracy: float, trial: int, control: str | None = None) -> None:
        """Show the best COMPLETE trial so far; `accuracy` is a fraction."""
        self._state = replace(self._state, best=Best(accuracy=accuracy, trial=trial, control=control))
        self._show()

    def message(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._said = self._clock()

    def event(self, slot: int, event: Event) -> None:
        """Show what a worker tells of itself, and print a line that stays when an attempt ended."""
        old = next((line for line in self._state.workers if line.slot == slot), WorkerLine(slot=slot))
        match event.kind:
            case "claimed" if (old.trial, old.attempt) == (event.trial, event.attempt) and slot in self._claimed:
                line = replace(old, device=event.device)  # the process is up, and knows its device
            case "claimed":
                self._claimed[slot] = self._clock()
                attempt = event.attempt or 1
                line = WorkerLine(
                    slot=slot, trial=event.trial, attempt=attempt, control=event.control, device=event.device
                )
            case "epoch":
                self._resumed.setdefault(slot, event.epoch or 0)
                line = replace(
                    old,
                    state="training",
                    epoch=event.epoch or 0,
                    accuracy=event.accuracy,
                    images_per_second=event.images_per_second,
                )
            case "waiting":
                line = WorkerLine(slot=slot, state="waiting", device=old.device)
            case "storage":
                if old.state != "database away":
                    self.message(f"worker {slot}: {event.reason}")
                line = replace(old, state="database away")
            case ended:
                line = replace(old, state=_WORDS[ended])
                self._ended(slot, event, old)
        self.update(line)

    def _ended(self, slot: int, event: Event, line: WorkerLine) -> None:
        claimed = self._claimed.pop(slot, None)
        self._resumed.pop(slot, None)
        if claimed is not None and event.kind in {"complete", "pruned"}:
            self._durations.append(self._clock() - claimed)
        self.message(describe_end(event, line, self._state.epochs))

    def _left(self) -> float | None:
        """Seconds: the trials to come, at the mean duration of those that ended here, over what runs side by side.

        Before the first has ended, a running trial's epochs so far stand for the whole: too long where trials are
        pruned, and right within one trial's time.
        """
        now = self._clock()
        running = {line.slot: line for line in self._state.workers if line.slot in self._claimed}
        durations = self._durations or [
            (now - self._claimed[slot]) / line.epoch * self._state.epochs
            for slot, line in running.items()
            if line.epoch > 0 and self._resumed.get(slot) == 1
        ]
        counts = self._state.counts
        if not durations:
            return None
        mean = sum(durations) / len(durations)
        done = sum(min(now - self._claimed[slot], mean) for slot in running)
        side_by_side = max(1, counts.running, len(self._state.workers))
        return max(0.0, (self._state.total - counts.finished) * mean - done) / side_by_side

    def _show(self) -> None:
        now = self._clock()
        self._state = replace(self._state, elapsed=now - self._begun, left=self._left())
        if self._live is not None and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._live.update(render(self._state, self._console.width), refresh=True)
        elif self._live is None and now - self._said >= HEARTBEAT_SECONDS:
            self.message(summary_line(self._state))


def describe_end(event: Event, line: WorkerLine, epochs: int) -> str:
    """How an attempt ended, in one line for people."""
    epoch = event.epoch or line.epoch
    where = f" at epoch {epoch} of {epochs}" if epoch and event.kind != "complete" else ""
    accuracy = f": {event.accuracy:.2%}" if event.kind == "complete" and event.accuracy is not None else ""
    again = f", attempt {event.attempt}" if event.attempt and event.attempt > 1 else ""
    why = f": {event.reason}" if event.reason else ""
    return f"{_trial(event.trial, event.control)}{again} {_WORDS[event.kind]}{where}{accuracy}{why}"


def summary_line(state: LiveState) -> str:
    """The whole study in one plain line."""
    parts = [f"{state.counts.finished} of {state.total} finished", f"{state.counts.running} running"]
    if state.counts.fail:
        parts.append(f"{state.counts.fail} failed")
    if state.best is not None:
        parts.append(f"best {state.best}")
    return ", ".join([*parts, f"{_time(state.elapsed)} so far", _left_in_words(state.left)])


def render(state: LiveState, width: int) -> RenderableType:
    """The view as it stands on a terminal of `width` columns; what does not fit is left out, never wrapped."""
    counts = state.counts
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f"{counts.finished} of {state.total} finished", "bold")
    head.append(f"  complete {counts.complete}", "green").append(f"  pruned {counts.pruned}", "yellow")
    if counts.infeasible:
        head.append(f"  beyond a limit {counts.infeasible}", "yellow")
    if counts.fail:
        head.append(f"  failed {counts.fail}", "red")
    tail = Text(f"best {state.best}" if state.best else "no trial completed yet", no_wrap=True, overflow="ellipsis")
    tail.append(f"  {_time(state.elapsed)} so far, {_left_in_words(state.left)}", "dim")
    bar = Table.grid()
    bar.add_row(ProgressBar(total=max(state.total, 1), completed=counts.finished, width=min(width, 80)))
    return Group(
        head,
        bar,
        tail,
        _workers_table(state, width),
    )


def _workers_table(state: LiveState, width: int) -> Table:
    table = Table.grid(padding=(0, 1), pad_edge=False)
    with_bar, with_speed, with_device = width >= 76, width >= 64, width >= 54
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, min_width=11)
    if with_bar:
        table.add_column(width=12, no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=7)
    table.add_column(justify="right", no_wrap=True, min_width=7)
    if with_speed:
        table.add_column(justify="right", no_wrap=True, min_width=9)
    if with_device:
        table.add_column(no_wrap=True, min_width=6)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for line in state.workers:
        busy = line.trial is not None
        again = line.attempt > 1 and line.state in {"starting", "training"}
        state_text = f"attempt {line.attempt}" if again else line.state
        cells: list[RenderableType] = [str(line.slot), _trial(line.trial, line.control) if busy else ""]
        if with_bar:
            cells.append(ProgressBar(total=state.epochs, completed=line.epoch, width=12) if busy else "")
        cells.append(f"{line.epoch}/{state.epochs}" if busy else "")
        cells.append("" if line.accuracy is None else f"{line.accuracy:.2%}")
        if with_speed:
            cells.append("" if line.images_per_second is None else f"{line.images_per_second:,.0f}/s")
        if with_device:
            cells.append(line.device or "")
        cells.append(Text(state_text, style=_STYLES.get(line.state, ""), no_wrap=True, overflow="ellipsis"))
        table.add_row(*cells)
    return table


def _trial(number: int | None, control: str | None) -> str:
    return f"#{number} {control}" if control else f"#{number}"


def _left_in_words(seconds: float | None) -> str:
    return "measuring the time left" if seconds is None else f"about {_time(seconds)} left"


def _time(seconds: float) -> str:
    """43 s, 4:05 or 2:04:05."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
