"""Ladder of a study in the dashboard: its graph, and its results, which are read again only when they changed."""

import html
from functools import lru_cache
from typing import Any

from igkd_hpo.compression.ladder import Ladder, read_ladder
from igkd_hpo.compression.plan import DISTILLED, PLAIN_KIND
from igkd_hpo.compression.rung import student_in_words
from igkd_hpo.confirmation.statistics import Estimate
from igkd_hpo.escaping import one_line
from igkd_hpo.report.palette import control_look
from igkd_hpo.search.confirmation_study import open_linked, recorded_state
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import percent, times

_LOOKS = ((PLAIN_KIND, control_look("student").colour, "square", 0.975), (DISTILLED, "#4a90d9", "circle", 1.025))
"""Kind, colour, mark, and how far it is moved aside, so that two intervals at one factor do not cover each other."""


def ladder_data(study: SearchStudy) -> list[dict[str, Any]]:
    """Return the traces of a study's ladder, given it or the ladder; none before the test split was read.

    Heights are means over the seeds in per cent, with their 95 % intervals.
    """
    linked = study if study.purpose == "ladder" else open_linked(study.storage, study.name, "ladder")
    ladder = None if linked is None else cached_ladder(linked)
    if ladder is None:
        return []
    data = []
    for kind, colour, symbol, aside in _LOOKS:
        found = [(step, arm.test.mean) for step in ladder.steps if (arm := step.arm(kind)) is not None]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": kind,
                "x": [float(f"{step.reached * aside:.4g}") for step, _ in found],
                "y": [round(100 * mean.value, 2) for _, mean in found],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(100 * (mean.high - mean.value), 2) for _, mean in found],
                    "arrayminus": [round(100 * (mean.value - mean.low), 2) for _, mean in found],
                    "color": colour,
                },
                "line": {"color": colour, "width": 1},
                "marker": {"color": colour, "symbol": symbol, "size": 9},
                "customdata": [f"{_describe(mean)}<br>{times(step.reached)} times smaller" for step, mean in found],
                "text": [html.escape(one_line(student_in_words(step.student)), quote=False) for step, _ in found],
                "hovertemplate": "%{customdata}<br>%{text}<extra></extra>",
            }
        )
    return data


def _describe(mean: Estimate) -> str:
    return f"{percent(mean.value)} ({percent(mean.low)} to {percent(mean.high)})"


def cached_ladder(linked: SearchStudy) -> Ladder | None:
    """Read a ladder, once for what is recorded: its intervals take long for a page that asks every few seconds."""
    return _cached(linked.storage, linked.name, recorded_state(linked))


@lru_cache(maxsize=32)
def _cached(storage: SharedStorage, name: str, version: str) -> Ladder | None:
    return read_ladder(SearchStudy(storage, name))
