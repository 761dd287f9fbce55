"""Timeline of a study: a row for each worker, a bar for each trial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.report.figures import WIDTH, wrap_name
from igkd_hpo.report.palette import BLUE, GRID, INK, PAPER
from igkd_hpo.report.pictures import new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 600  # the dashboard sends them with every refresh
MOST_WORKERS = 40
_LETTER = 0.022  # of the axis: the width of a letter in a bar
_LONG_IDLE = 0.25  # of the busy time: what is longer is left out
_IDLE_WIDTH = 0.05  # of the busy time: the room that it gets instead
_STEPS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 604800)  # seconds
_LABEL_WIDTH = 0.2  # of the axis: the room that a date needs


@dataclass(frozen=True)
class Stretches:
    """Spans of time in seconds in which trials ran, and their places on an axis that leaves long idle times out."""

    spans: tuple[tuple[float, float], ...]
    idle_width: float

    @property
    def length(self) -> float:
        """Return the length of the axis in seconds."""
        return sum(end - begin for begin, end in self.spans) + self.idle_width * (len(self.spans) - 1)

    def place(self, time: float) -> float:
        """Return where on the axis a time of one of the spans is, from 0."""
        place = 0.0
        for begin, end in self.spans:
            if time <= end:
                return place + max(0.0, time - begin)
            place += end - begin + self.idle_width
        return self.length


def stretches(intervals: Sequence[tuple[float, float]]) -> Stretches:
    """Join intervals to stretches, apart where nothing ran for long."""
    joined = _join(intervals, 0.0)
    busy = sum(end - begin for begin, end in joined) or 1.0
    return Stretches(tuple(_join(joined, _LONG_IDLE * busy)), _IDLE_WIDTH * busy)


def timeline_figure(trials: Sequence[FrozenTrial], *, now: datetime) -> "Figure | None":
    """Draw the last attempt of each trial; None before the first trial.

    Args:
        now: where the bars of running trials end; naive local time, as Optuna's times are.
    """
    last, workers = newest_bars(begun_trials(trials))
    if not last:
        return None
    drawn = [trial for trial in last if worker_of(trial) in workers]
    figure = new_figure(width=WIDTH, height=1.3 + 0.34 * len(workers))
    axis = figure.subplots()
    looks: dict[TrialState, dict[str, Any]] = {
        TrialState.COMPLETE: {"label": "completed", "facecolor": BLUE},
        TrialState.PRUNED: {"label": "pruned", "facecolor": GRID, "hatch": "////"},
        TrialState.FAIL: {"label": "failed", "facecolor": PAPER, "hatch": "xxxx"},
        TrialState.RUNNING: {"label": "running", "facecolor": PAPER},
    }
    times = [(trial.datetime_start or now, trial.datetime_complete or now) for trial in drawn]
    midnight = datetime.combine(min(times)[0], time.min)
    intervals = [((a - midnight).total_seconds(), (max(a, b) - midnight).total_seconds()) for a, b in times]
    along = stretches(intervals)
    for trial, (start, stop) in zip(drawn, intervals, strict=True):
        begin, end = along.place(start), along.place(stop)
        row, look = workers.index(worker_of(trial)), looks[trial.state]
        axis.barh(row, end - begin, left=begin, height=0.7, edgecolor=INK, linewidth=0.5, **look)
        look["label"] = "_nolegend_"
        attempts = trial.user_attrs.get("attempts", 1)
        again = f" x{attempts}" if attempts > 1 else ""
        text = f"{trial.number}{again}"
        if (end - begin) / along.length < _LETTER * len(text):
            text = again.strip()
        if text:
            light = {"color": INK, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}}
            style: dict[str, Any] = {"color": PAPER} if trial.state is TrialState.COMPLETE else light
            axis.text((begin + end) / 2, row, text, ha="center", va="center", fontsize=6.5, **style)
    axis.set_yticks(range(len(workers)), [wrap_name(worker, 16) for worker in workers], fontsize=8)
    axis.set_ylim(len(workers) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    _label_times(axis, along, midnight)
    plain_axes(axis, grid="x")
    figure.legend(loc="outside lower left", fontsize=9, frameon=False, ncols=2)
    return figure


def begun_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that run or have ended."""
    return [trial for trial in trials if trial.datetime_start and trial.state is not TrialState.WAITING]


def newest_bars(begun: Sequence[FrozenTrial]) -> tuple[Sequence[FrozenTrial], list[str]]:
    """Return as many of the newest trials as bars are drawn of, and of their workers those that have a row."""
    last = begun[-MOST_BARS:]
    return last, list(dict.fromkeys(map(worker_of, last)))[-MOST_WORKERS:]


def worker_of(trial: FrozenTrial) -> str:
    """Return the name of the worker that ran the trial's last attempt."""
    return str(trial.user_attrs.get("worker", "another tool"))


def _join(intervals: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if joined and begin - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _label_times(axis: "Axes", along: Stretches, midnight: datetime) -> None:
    def clock(seconds: float, form: str) -> str:
        return (midnight + timedelta(seconds=seconds)).strftime(form)

    axis.set_xlabel(clock(along.spans[0][0], "from %d %b %Y, %H:%M"), fontsize=9)
    if len(along.spans) == 1:
        ((begin, end),) = along.spans
        step = next((step for step in _STEPS if (end - begin) / step <= 5), end - begin)
        form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%d %b"
        seconds = [step * n for n in range(math.ceil(begin / step), int(end // step) + 1)]
        axis.set_xticks([along.place(second) for second in seconds], [clock(s, form) for s in seconds], fontsize=9)
        return
    labels: dict[float, str] = {}
    for begin, _ in along.spans:
        place = along.place(begin)
        if not labels or place - max(labels) >= _LABEL_WIDTH * along.length:
            labels[place] = clock(begin, "%d %b\n%H:%M")
    axis.set_xticks(list(labels), list(labels.values()), fontsize=9, ha="left")
    for begin, _ in along.spans[1:]:
        axis.axvline(along.place(begin) - along.idle_width / 2, color=INK, linewidth=1, linestyle=":")
