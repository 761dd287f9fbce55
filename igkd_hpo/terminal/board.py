"""Draw a study while it runs, as text for a terminal of any width; `launch` and `status` show it alike."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from igkd_hpo.distillation.metrics import METRICS, Metric, measured
from igkd_hpo.search.counts import Counts
from igkd_hpo.search.status import StudyStatus
from igkd_hpo.search.strata import strata_in_words
from igkd_hpo.terminal.sparkline import sparkline
from igkd_hpo.words import byte_size, duration, percent, points_between

LOG_SECONDS = 30.0  # between two lines of a log that say the same, or that nothing has happened
_LEAST_CURVE, _MOST_CURVE = 6, 48  # cells
_LEAST_ERROR = 1e-3  # of a curve: what is below it looks like it
_GAP = "  "
_DIM, _LABEL = "bright_black", 10
_STYLES = {"complete": "green", "pruned": "yellow", "beyond a limit": "yellow"}
_STYLES |= dict.fromkeys(("failed", "lost", "gone", "silent", "no database"), "red")
_WITH_CURVE = {"training", "complete", "pruned"}

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker and the trial that it trains, None where there is nothing yet.

    Args:
        worker: slot or name.
        state: in words: starting, training, waiting, no database, or how its last attempt ended.
        epoch: epochs finished.
        curve: validation accuracies (fractions) of the epochs so far, from the first.
        memory: bytes of the trial process; `device_memory` and `device_memory_total` those of its GPU.
        device: for example cpu or cuda:0.
        seconds: since the worker took the trial.
    """

    worker: str
    state: str = "starting"
    trial: int | None = None
    attempt: int = 1
    control: str | None = None
    epoch: int = 0
    curve: tuple[float, ...] = ()
    images_per_second: float | None = None
    memory: int | None = None
    device_memory: int | None = None
    device_memory_total: int | None = None
    device: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Board:
    """A drawing's content: a study, its workers, and its times.

    Args:
        kind: launch shows slots with speed and memory; status shows names of workers, from the database alone.
        rows: one for each worker.
        elapsed, left: seconds; None while unknown.
    """

    kind: Literal["launch", "status"]
    study: StudyStatus
    rows: tuple[WorkerRow, ...] = ()
    elapsed: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class _Column:
    """A column of the table; its `width` is kept free also while it is empty, so that no other column moves."""

    heading: str
    width: int
    cell: Callable[[WorkerRow], Text]
    right: bool = False


_DEVICE = _Column("device", 6, lambda row: Text(row.device or ""))


def render(board: Board, width: int, height: int | None = None) -> RenderableType:
    """Draw the board on a terminal of `width` columns; what does not fit is left out or cut, never wrapped.

    Args:
        height: lines there are; None for as many as it takes.
    """
    table = _table(board, width)
    broad = min(width, max(60, table[0].cell_len if table else 0))
    lines = [_head(board, broad), _bar(board.study, broad), _counts(board.study.counts)]
    if compares(board.study):
        lines += _facts(board.study, full=width >= 100)
    if table:
        room = len(table) if height is None else max(2, height - len(lines) - 1)
        if (hidden := len(table) - room) > 0:
            table[room - 1 :] = [Text(f"… and {hidden + 1} more", style=_DIM)]
        lines += [Text(""), *table]
    return Group(*(cut(line, width) for line in lines))


def cut(line: Text, width: int) -> Text:
    """Cut a line to `width` columns, with an ellipsis where it was longer."""
    line.no_wrap = True
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line


def compares(study: StudyStatus) -> bool:
    """Tell whether a study's best trial means anything: in a confirmation it is the luckiest seed."""
    return study.confirms is None


def name_best(study: StudyStatus) -> str:
    """Name a study's best trial, as `name_trial` does."""
    return name_trial(study.best_trial, study.best_control)


def summary_line(board: Board) -> str:
    """Say in one plain line how far the study is."""
    study, counts = board.study, board.study.counts
    parts = [f"{counts.finished} of {study.n_trials} finished", f"{counts.running} running"]
    if counts.fail:
        parts.append(f"{counts.fail} failed")
    if study.best_accuracy is not None:
        parts.append(f"best {measured(study.best_accuracy, study.metric)} ({name_best(study)})")
    return ", ".join(filter(None, [*parts, _times(board)]))


def name_trial(number: int | None, control: str | None) -> str:
    """Name a trial: #9, or #9 kd_ig."""
    return f"#{number} {control}" if control else f"#{number}"


def _times(board: Board) -> str:
    left = "measuring the time left" if board.left is None else f"about {duration(board.left)} left"
    if board.kind == "status" and board.left is None:
        return ""
    return left if board.elapsed is None else f"{duration(board.elapsed)} so far, {left}"


def _head(board: Board, width: int) -> Text:
    times = _times(board)
    head = Text(board.study.name, style="bold")
    room = width - len(times) - len(_GAP)
    if room < min(len(board.study.name), 12):
        return head
    head.truncate(room, overflow="ellipsis", pad=True)
    return head.append(_GAP + times, "not bold " + _DIM)


def _bar(study: StudyStatus, width: int) -> Text:
    counts, total = study.counts, max(study.n_trials, 1)
    label = f" {counts.finished} of {study.n_trials}"
    cells = max(width - len(label), 0)
    finished = min(round(cells * counts.finished / total), cells)
    complete = min(round(cells * counts.complete / total), finished)
    bar = Text().append("━" * complete, "green").append("━" * (finished - complete), "yellow")
    return bar.append("─" * (cells - finished), _DIM).append(label, "bold")


def _counts(counts: Counts) -> Text:
    line = Text()
    for word, number in counts.by_word().items():
        if number or word in {"complete", "pruned", "running"}:
            style = _STYLES.get(word, "") if number else _DIM
            line.append(_GAP if line else "").append(f"{number} {word}", style)
    return line


def _facts(study: StudyStatus, *, full: bool) -> list[Text]:
    """Write the best, the controls, the newest pruned trial, and the strata if there are any.

    A study always has as many lines, so that nothing below moves.
    """
    first = Text("best".ljust(_LABEL), style=_DIM)
    if study.best_accuracy is None:
        first.append("no trial completed yet")
    else:
        first.append(measured(study.best_accuracy, study.metric), "bold green").append(
            _GAP + name_best(study), "default"
        )
        first.append(_GAP + _against(study, study.best_accuracy, full=full), "default")
    second = Text("controls".ljust(_LABEL), style=_DIM)
    for control in study.controls:
        accuracy = "-" if control.validation_accuracy is None else percent(control.validation_accuracy)
        second.append(f"{control.control} ").append(accuracy, "default").append(_GAP)
    if not study.controls:
        second.append("none")
    third = Text("pruned".ljust(_LABEL), style=_DIM)
    if (pruned := study.last_pruned) is None:
        third.append("none yet")
    else:
        third.append(f"#{pruned.trial}", "yellow").append(" " + (pruned.reason.splitlines() or [""])[0], "default")
    strata = Text("strata".ljust(_LABEL), style=_DIM).append(strata_in_words(study.strata, study.metric), "default")
    return [first, second, third, *([strata] if study.strata else [])]


def _against(study: StudyStatus, best: float, *, full: bool) -> str:
    accuracies = {c.control: c.validation_accuracy for c in study.controls if c.validation_accuracy is not None}
    if study.best_control or not accuracies:
        return "which is a control" if study.best_control and full else ""
    control = max(accuracies, key=accuracies.__getitem__)
    return f"{points_between(best, accuracies[control])} over {control}" + (", the best control" if full else "")


def _table(board: Board, width: int) -> list[Text]:
    """Lay out headings and a line for each row; return nothing without rows."""
    if not board.rows:
        return []
    before, after = _launch_columns(board, width) if board.kind == "launch" else _status_columns(board, width)
    others = [*before, *after]
    widths = {id(column): max([column.width, *(column.cell(row).cell_len for row in board.rows)]) for column in others}
    room = width - sum(widths.values()) - len(_GAP) * len(others)
    curve = _curve_column(board, room) if room >= _LEAST_CURVE else None
    columns = [*before, *([curve] if curve else []), *after]
    lines = []
    for row in (None, *board.rows):
        line = Text()
        for place, column in enumerate(columns):
            cell = Text(column.heading, style=_DIM) if row is None else column.cell(row)
            wide = widths.get(id(column), column.width)
            cell.truncate(wide, overflow="ellipsis")
            space = Text(" " * (wide - cell.cell_len))
            line = line.append(_GAP if place else "") + (space + cell if column.right else cell + space)
        lines.append(line)
    return lines


def _launch_columns(board: Board, width: int) -> tuple[list[_Column], list[_Column]]:
    after = [_Column("images/s", 8, lambda row: _optional(row.images_per_second, "{:,.0f}".format), right=True)]
    if width >= 70:
        after.append(_Column("memory", 7, lambda row: _optional(row.memory, byte_size), right=True))
    if width >= 96 and any((row.device or "").startswith("cuda") for row in board.rows):
        after.append(_Column("GPU memory", 11, _device_memory, right=True))
    if width >= 76:
        after.append(_DEVICE)
    if width >= 110:
        after.append(_Column("time", 7, lambda row: _optional(row.seconds, duration, _DIM), right=True))
    slot = _Column("", 2, lambda row: Text(row.worker, style=_DIM), right=True)
    return [slot, *_trial_columns(board)], after if width >= 54 else []


def _status_columns(board: Board, width: int) -> tuple[list[_Column], list[_Column]]:
    most = max(14, width // 4 + 2)

    def worker(row: WorkerRow) -> Text:
        # The end of a long name tells workers of one host apart.
        return Text(row.worker if len(row.worker) <= most else "…" + row.worker[-(most - 1) :])

    after = [*([_DEVICE] if width >= 72 else []), _Column("worker", 14, worker)]
    return _trial_columns(board), after if width >= 54 else []


def _trial_columns(board: Board) -> list[_Column]:
    epochs = board.study.epochs
    best = board.study.best_accuracy if compares(board.study) else None
    names = [name_trial(control.trial, control.control) for control in board.study.controls]

    def trial(row: WorkerRow) -> Text:
        return _optional(row.trial, lambda number: name_trial(number, row.control))

    def attempt(row: WorkerRow) -> Text:
        return _optional(row.trial, lambda _: str(row.attempt), "yellow" if row.attempt > 1 else _DIM)

    def epoch(row: WorkerRow) -> Text:
        return _optional(row.trial, lambda _: f"{row.epoch}/{epochs}")

    def accuracy(row: WorkerRow) -> Text:
        newest = row.curve[-1] if row.curve else None
        ahead = newest is not None and best is not None and newest > best
        return _optional(newest, percent, "bold green" if ahead else "bold")

    return [
        _Column("trial", max([6, *map(len, names)]), trial),
        _Column("try", 3, attempt, right=True),
        _Column("epoch", max(len("epoch"), 2 * len(str(epochs)) + 1), epoch, right=True),
        _Column(_heading(board.study.metric), 8, accuracy, right=True),
    ]


def _curve_column(board: Board, room: int) -> _Column:
    # One scale for all, so that rows can be compared.
    shown = [_rise(accuracy) for row in board.rows for accuracy in row.curve]
    best, epochs = board.study.best_accuracy, board.study.epochs
    top = [] if best is None else [_rise(best)]
    low, high = min(shown, default=0.0), max([*shown, *top], default=0.0)
    room = min(room, _MOST_CURVE)
    width = room // epochs * epochs if epochs <= room else room

    def cell(row: WorkerRow) -> Text:
        if row.state not in _WITH_CURVE or not row.curve:
            return Text(row.state, style=_STYLES.get(row.state.partition(",")[0], _DIM))
        drawn = sparkline([_rise(accuracy) for accuracy in row.curve], total=epochs, width=width, low=low, high=high)
        style = _STYLES.get(row.state, "cyan")
        return Text(drawn, style=style).append("·" * (width - len(drawn)), _DIM)

    return _Column("", width, cell)


def _heading(metric: Metric) -> str:
    """Name a metric in the width of a figure: accuracy, balanced, macro F1. The best has its whole name above."""
    return METRICS[metric].removesuffix(" accuracy")


def _rise(accuracy: float) -> float:
    """Map equal shares of the error to equal steps: from 95 to 97.5 % is as much as from 10 to 55 %."""
    return -math.log(max(1 - accuracy, _LEAST_ERROR))


def _optional(value: _T | None, write: Callable[[_T], str], style: str = "") -> Text:
    return Text("" if value is None else write(value), style=style)


def _device_memory(row: WorkerRow) -> Text:
    if row.device_memory is None or row.device_memory_total is None:
        return Text("")
    return Text(f"{row.device_memory / 2**30:.1f}/{row.device_memory_total / 2**30:.0f} GiB")
