"""Show a running launch, from the events of its workers and the state of the database."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

from igkd_hpo.distillation.metrics import measured
from igkd_hpo.engines.events import Event
from igkd_hpo.search.status import StudyStatus
from igkd_hpo.terminal.board import LOG_SECONDS, Board, WorkerRow, name_trial, render, summary_line
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.screen import Screen

REDRAW_SECONDS = 0.25  # 64 workers with epochs of a tenth of a second would redraw 640 times a second
_WORDS = {"complete": "complete", "pruned": "pruned", "fail": "failed", "released": "released", "lost": "lost"}


@dataclass(kw_only=True)
class _Run:
    """A trial that a slot trains: the times of its claim and of the end of each epoch of this attempt."""

    claimed: float
    trained: list[float] = field(default_factory=list)

    @property
    def epoch_seconds(self) -> float | None:
        """Return the median of its newest epochs; before the second, the start of the process is part of it."""
        gaps = [later - earlier for earlier, later in pairwise([self.claimed, *self.trained])]
        return statistics.median(gaps[1:][-5:] or gaps) if gaps else None


class LiveView:
    """Context manager that shows a running study: a board where it can be drawn again, else plain lines.

    Args:
        workers: slots; each has its line from the beginning.
        clock: seconds, monotonic.
    """

    def __init__(
        self, console: Console, study: StudyStatus, *, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        rows = tuple(WorkerRow(worker=str(slot)) for slot in range(workers))
        self._board = Board(kind="launch", study=study, rows=rows)
        self._begun = self._said = clock()
        self._drawn = -math.inf
        self._runs: dict[int, _Run] = {}
        self._durations: list[float] = []
        self._repeated: dict[str, float] = {}
        self._screen = Screen(console, transient=True)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._screen.__exit__(*error)

    def refresh(self, study: StudyStatus) -> None:
        """Show how far the study is: other hosts work on it too."""
        self._board = replace(self._board, study=study)
        self._show()

    def message(self, text: str) -> None:
        """Print a line that stays; the same text again only after a while: a database may be away for hours."""
        now = self._clock()
        if now - self._repeated.get(text, -math.inf) >= LOG_SECONDS:
            self._repeated[text] = now
            self._say(text)

    def event(self, slot: int, event: Event) -> None:
        """Show a worker's event, and print a line that stays when an attempt ended."""
        old = self._board.rows[slot]
        device = None if event.device == "auto" else event.device  # the process says which one auto is, when it is up
        match event.kind:
            case "claimed" if (old.trial, old.attempt) == (event.trial, event.attempt) and slot in self._runs:
                # The process is up, and knows its device.
                row = replace(old, state="starting", device=device)
            case "claimed":
                self._runs[slot] = _Run(claimed=self._clock())
                idle = WorkerRow(worker=str(slot), control=event.control, device=device)
                row = replace(idle, trial=event.trial, attempt=event.attempt or 1)
            case "epoch":
                row = self._epoch(slot, event, old)
            case "waiting" if slot in self._runs:  # with its trial, for the device
                self._runs[slot] = _Run(claimed=self._clock())
                row = replace(old, state="waiting")
            case "waiting":
                row = WorkerRow(worker=str(slot), state="waiting", device=old.device)
            case "storage":
                if old.state != "no database":
                    self._say(f"worker {slot}: {event.reason}")
                row = replace(old, state="no database")
            case ended:
                row = replace(old, state=_WORDS[ended])
                self._ended(slot, event, old)
        rows = self._board.rows
        self._board = replace(self._board, rows=(*rows[:slot], row, *rows[slot + 1 :]))
        self._show()

    def _epoch(self, slot: int, event: Event, old: WorkerRow) -> WorkerRow:
        epoch = event.epoch or 0
        if slot in self._runs and event.memory is not None:  # those of an earlier attempt come all at once
            self._runs[slot].trained.append(self._clock())
        return replace(
            old,
            state="training",
            epoch=epoch,
            curve=old.curve if event.accuracy is None else (*old.curve[: epoch - 1], event.accuracy),
            images_per_second=event.images_per_second,
            memory=event.memory,
            device_memory=event.device_memory,
            device_memory_total=event.device_memory_total,
        )

    def _ended(self, slot: int, event: Event, row: WorkerRow) -> None:
        run = self._runs.pop(slot, None)
        whole = run is not None and 0 < row.epoch == len(run.trained)  # in one attempt, and not beyond a limit
        if run is not None and whole and event.kind in {"complete", "pruned"}:
            self._durations.append(self._clock() - run.claimed)
        self._say(describe_end(event, row, self._board.study.epochs))

    def _left(self) -> float | None:
        """Estimate the seconds left: trials to come, at the mean duration of those that ended here, over those running.

        Before the first has ended, the newest epochs of the running ones stand for all: too long where trials are
        pruned, and right within one trial's time. In the end, when none is left to begin, the slowest one counts.
        """
        counts, epochs = self._board.study.counts, self._board.study.epochs
        to_go = self._board.study.n_trials - counts.finished
        if to_go <= 0:
            return 0.0
        running = [(self._board.rows[slot], run) for slot, run in sorted(self._runs.items())]
        timed = [(row.epoch, seconds) for row, run in running if (seconds := run.epoch_seconds) is not None]
        if timed and to_go <= len(timed):
            return max((epochs - epoch) * seconds for epoch, seconds in timed)  # unless they are pruned
        durations = self._durations or [epochs * seconds for _, seconds in timed]
        if not durations:
            return None
        mean, now = statistics.fmean(durations), self._clock()
        done = sum(min(now - run.claimed, mean) for _, run in running)
        side_by_side = min(max(1, counts.running, len(self._board.rows)), to_go)
        return max(0.0, to_go * mean - done) / side_by_side

    def _say(self, text: str) -> None:
        self._screen.say(text)
        self._said = self._clock()

    def _show(self) -> None:
        now = self._clock()
        if self._screen.redraws and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            board = self._timed()
            self._screen.show(lambda width, height: render(board, width, height))
        elif not self._screen.redraws and now - self._said >= LOG_SECONDS:
            self._say(summary_line(self._timed()))

    def _timed(self) -> Board:
        now = self._clock()
        rows = tuple(
            replace(row, seconds=now - run.claimed) if (run := self._runs.get(int(row.worker))) else row
            for row in self._board.rows
        )
        return replace(self._board, rows=rows, elapsed=now - self._begun, left=self._left())


def describe_end(event: Event, row: WorkerRow, epochs: int) -> str:
    """Say how an attempt ended, in one line that is aligned with those of other trials."""
    trial = name_trial(event.trial, event.control)
    again = f"attempt {event.attempt}" if event.attempt and event.attempt > 1 else ""
    epoch = event.epoch or row.epoch
    where = f"at epoch {epoch} of {epochs}" if epoch and event.kind not in {"complete", "pruned"} else ""
    accuracy = event.accuracy if event.kind == "complete" else None  # where one was pruned, the reason begins so
    value = "" if accuracy is None else measured(accuracy, event.metric)
    why = ": ".join(filter(None, (", ".join(filter(None, (value, again, where))), event.reason)))
    return f"{trial:<10} {_WORDS[event.kind]:<10} {why}".rstrip()
