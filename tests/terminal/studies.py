"""A study of which nothing is known yet."""

from typing import Any

from igkd_hpo.search.counts import Counts
from igkd_hpo.search.status import StudyStatus


def begun_study(**facts: Any) -> StudyStatus:
    """A study `digits` of 24 trials of 12 epochs in which nothing has ended, but for these facts."""
    counts = Counts(complete=0, pruned=0, fail=0, running=0, waiting=0)
    return StudyStatus(**({"name": "digits", "n_trials": 24, "counts": counts, "epochs": 12} | facts))
