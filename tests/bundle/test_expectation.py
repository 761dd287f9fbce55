"""What one more run should give: by hand for few runs, and by simulation for what 95 % means."""

import dataclasses

import numpy as np
import pytest

from igkd_hpo.bundle.expectation import expected_of, from_one_run, from_runs
from igkd_hpo.config.study import LARGEST_SEED
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.study import SearchStudy
from tests.fixtures.studies import Run


def test_the_interval_of_three_runs_by_hand() -> None:
    expected = from_runs([0.90, 0.92, 0.94], step=1e-5, next_seed=7)
    # t(0.975, 2) = 4.3027, sd = 0.02, sqrt(1 + 1/3) = 1.1547
    assert expected.low == pytest.approx(0.92 - 4.3027 * 0.02 * 1.1547, abs=1e-5)
    assert expected.high == 1.0
    assert (expected.validation_accuracy, expected.runs, expected.seed) == (pytest.approx(0.92), 3, 7)


def test_the_interval_holds_one_more_run_95_times_in_100() -> None:
    draws = 0.9 + 0.004 * np.random.default_rng(0).standard_normal((4000, 6))
    inside = [from_runs(row[:5].tolist(), step=1e-5, next_seed=0).holds(row[5]) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)


def test_one_run_has_a_tolerance_that_says_so() -> None:
    expected = from_one_run(0.9, images=1000, seed=3)
    half = 1.96 * (2 * 0.8992 * 0.1008 / 1000) ** 0.5
    assert expected.low == pytest.approx(0.9 - half, abs=1e-4)
    assert expected.high == pytest.approx(0.9 + half, abs=1e-4)
    assert "a single run" in expected.basis
    assert expected.holds(0.9)
    assert expected.holds(expected.low)
    assert not expected.holds(0.86)


def test_a_perfect_run_leaves_room() -> None:
    expected = from_one_run(1.0, images=100, seed=0)
    assert expected.holds(0.99)
    assert expected.high == 1.0


def test_runs_that_are_equal_by_chance_leave_room() -> None:
    expected = from_runs([0.95] * 5, step=0.01, next_seed=0)
    # t(0.975, 4) = 2.7764 times the deviation of rounding to whole images
    assert expected.high - 0.95 == pytest.approx(2.7764 * 0.01 / 12**0.5 * 1.2**0.5, rel=1e-4)


def test_a_confirmed_trial_is_expected_within_the_interval_of_its_seeds(study: SearchStudy, run: Run) -> None:
    run(0.5, 0.6, 0.70)
    best = best_trial(study)
    alone = expected_of(best, 0.7, images=100)
    assert (alone.runs, alone.seed) == (1, best.seed)
    facts = {"seeds": [1000, 1002, 1001], "validation_accuracies": [0.70, 0.72, 0.74]}
    confirmed = expected_of(dataclasses.replace(best, confirmed=facts), 0.7, images=100_000)
    assert (confirmed.runs, confirmed.seed) == (3, 1003)
    assert confirmed.validation_accuracy == pytest.approx(0.72)
    last = {"seeds": [LARGEST_SEED - 1, LARGEST_SEED], "validation_accuracies": [0.7, 0.7]}
    assert expected_of(dataclasses.replace(best, confirmed=last), 0.7, images=100).seed == LARGEST_SEED - 2
