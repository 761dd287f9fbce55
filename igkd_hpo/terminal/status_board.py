"""Draw what every study is doing: a board for each that runs, a line for each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from igkd_hpo.distillation.metrics import measured
from igkd_hpo.search.absence import no_studies
from igkd_hpo.search.status import RunningTrial, StudyStatus, state_in_words
from igkd_hpo.search.strata import strata_in_words
from igkd_hpo.terminal.board import Board, WorkerRow, compares, cut, name_best, render
from igkd_hpo.words import duration

StaleSeconds = Mapping[tuple[str, int], float]
"""Seconds since the last heartbeat, by name of the study and number of the trial, where they are worth a word."""


def study_board(study: StudyStatus, stale: StaleSeconds | None = None) -> Board:
    """Make the board of a study from the database alone."""
    return Board(
        kind="status",
        study=study,
        rows=tuple(_row(trial, (stale or {}).get((study.name, trial.trial))) for trial in study.running),
        left=study.seconds_left,
    )


def status_board(
    studies: Sequence[StudyStatus],
    width: int,
    height: int | None = None,
    *,
    stale: StaleSeconds | None = None,
    queued: Mapping[str, str] | None = None,
    assets: Path | None = None,
) -> RenderableType:
    """Draw all studies: what runs, then the others; with a height, cut every line, else show reasons whole.

    Args:
        queued: what of a study waits in a cluster's queue, in words, by name.
        assets: the folder where studies of this host have theirs; without any study, what is at work there is told.
    """
    whole = height is None
    running = [study for study in studies if study.running]
    others = [study for study in studies if not study.running]
    room = None if height is None else max(8, height // max(1, len(running)) - 1)
    parts: list[RenderableType] = []
    for study in running:
        parts += [Text("")] if parts else []
        parts += [render(study_board(study, stale), width, room), *_notes(study, queued or {}, width, whole=whole)]
    if others:
        parts += [Text("")] if parts else []
        parts += [cut(line, width) for line in _overview(others, {study.name for study in studies})]
        parts += [line for study in others for line in _notes(study, queued or {}, width, whole=whole)]
    if not parts:
        return Text(no_studies(assets))
    return Group(*parts)


def _row(trial: RunningTrial, stale: float | None) -> WorkerRow:
    state = "training" if trial.validation_accuracies else "starting"
    if trial.lost:
        state = "gone"
    elif stale is not None:
        state = f"silent, {duration(stale)}"
    at_host = "" if trial.worker.startswith(trial.host) else f"{trial.host}:"
    return WorkerRow(
        worker=at_host + trial.worker,
        state=state,
        trial=trial.trial,
        attempt=trial.attempt,
        control=trial.control,
        epoch=trial.epoch,
        curve=trial.validation_accuracies,
        device=None if trial.device == "auto" else trial.device,
    )


def _overview(studies: Sequence[StudyStatus], names: set[str]) -> list[Text]:
    table = [("study", "state", "best", "trials")]  # a narrow terminal cuts the last
    for study in studies:
        best = study.best_accuracy if compares(study) else None
        counts = f": {study.counts.in_words()}" if any(study.counts.by_word().values()) else ""
        table.append(
            (
                f"  {study.name}" if study.confirms in names else study.name,
                state_in_words(study),
                "" if best is None else f"{measured(best, study.metric)}  {name_best(study)}",
                "" if study.unusable else f"{study.counts.finished} of {study.n_trials}{counts}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    return [Text(line, style="" if place else "bright_black") for place, line in enumerate(lines)]


def _notes(study: StudyStatus, queued: Mapping[str, str], width: int, *, whole: bool) -> list[Text]:
    reasons = (study.last_failure or "").strip().splitlines()
    failed = f"the last failed trial: {reasons[-1]}" if reasons else None
    lines = [Text(study.unusable, style="red")] if study.unusable else []
    lines += [
        Text(f"{study.name}: {reason}", style="red" if study.stopped and not study.stop_planned else "yellow")
        for reason in (study.stopped and f"{state_in_words(study)}: {study.stopped}", failed)
        if reason
    ]
    if study.strata and not study.running:  # its board has them
        lines.append(Text(f"{study.name}: strata: {strata_in_words(study.strata, study.metric)}"))
    if study.name in queued:
        lines.append(Text(f"{study.name}: {queued[study.name]}"))
    return lines if whole else [cut(line, width) for line in lines]
