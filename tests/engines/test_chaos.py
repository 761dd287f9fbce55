"""The short form of benchmarks/chaos.py: real kills, real training, and the verdict from database and logs."""

import pytest
from optuna.trial import TrialState, create_trial

from benchmarks import chaos
from benchmarks.chaos import Journal, goals, run, superseded


def test_a_short_chaos_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whom SIGKILL ends counts no coverage, and each start would take a quarter longer.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    monkeypatch.setattr(chaos, "WORKERS", 1)  # in each of two launches
    verdict = run("sqlite", events=2, minutes=1, every=1.0, trials=2, epochs=4, seed=5, added=0)
    assert [goal for goal, holds in goals(verdict, 1, 0).items() if not holds] == [], verdict


def test_the_verdict_finds_a_superseded_report() -> None:
    trial = create_trial(state=TrialState.COMPLETE, value=0.5, intermediate_values={1: 0.25, 2: 0.5})
    journals = {(-1, 1): Journal(sent={1: (10.0, 0.25), 2: (20.0, 0.5)}), (-1, 2): Journal(sent={1: (15.0, 0.25)})}
    own = {"what": "report", "step": 1, "value": 0.25, "attempt": 2, "at": 15.0}
    assert superseded(own, trial, journals) is None
    for foreign in (
        {"step": 2, "value": 0.5, "at": 21.0},  # attempt 1 wrote what attempt 2 never sent
        {"at": 11.0},  # before attempt 2 had sent it
        {"value": 0.75},
        {"attempt": None},
        {"what": "COMPLETE"},
    ):
        assert superseded(own | foreign, trial, journals) is not None, foreign
