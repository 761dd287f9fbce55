"""Table of a study's trials for programs: one row for each, in columns that every study has in the same order."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.escaping import one_line
from igkd_hpo.search.records import TrialRecord

FACTS = (
    "number",
    "state",
    "control",
    "validation_accuracy",
    "epochs",
    "seconds",
    "seed",
    "attempts",
    "host",
    "device",
    "started",
    "ended",
    "reason",
)
COSTS_IN_TABLE = tuple(field.name for field in fields(StudentCost))
PREFIX = "params_"
"""Begins the names of the hyperparameters' columns, as it does in Optuna's tables."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one at the beginning of a text


def table_columns() -> list[str]:
    """Return the names of the columns: what happened, the student's cost, the hyperparameters."""
    return [*FACTS, *COSTS_IN_TABLE, *(f"{PREFIX}{name}" for name in Hyperparameters.model_fields)]


def as_csv(trials: Iterable[TrialRecord]) -> Iterator[str]:
    """Yield the lines of a table in CSV, the names of the columns first; what is not known is empty."""
    yield _line(table_columns())
    for trial in trials:
        facts, hyperparameters = _facts(trial), trial.hyperparameters
        costs = [trial.cost.get(name) for name in COSTS_IN_TABLE]
        values = [hyperparameters.get(name) for name in Hyperparameters.model_fields]
        yield _line([*facts.values(), *costs, *values])


def as_json(trials: Iterable[TrialRecord]) -> Iterator[str]:
    """Yield the lines of a JSON array, an object for each trial; what is not known is null."""
    before = "["
    for trial in trials:
        costs = {name: trial.cost.get(name) for name in COSTS_IN_TABLE}
        curve = {"validation_accuracies": trial.accuracies, "hyperparameters": trial.hyperparameters}
        yield f"{before}\n  {json.dumps(_facts(trial) | costs | curve)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _facts(trial: TrialRecord) -> dict[str, Any]:
    known = {
        "validation_accuracy": trial.accuracy,
        "started": _utc(trial.started),
        "ended": _utc(trial.ended),
    }
    return {name: known[name] if name in known else getattr(trial, name) for name in FACTS}


def _utc(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds")


def _line(cells: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(["" if cell is None else _cell(cell) for cell in cells])
    return buffer.getvalue()


def _cell(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = one_line(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text
