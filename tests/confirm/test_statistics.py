"""The tests that decide: hand-computed numbers, limits, and a planted truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from igkd_hpo.confirmation.sentences import name_p_value
from igkd_hpo.confirmation.statistics import (
    LEVEL,
    Estimate,
    compare,
    contrasts,
    holm,
    moderated_variances,
    t_interval,
    two_way_interval,
)

RESOLUTION = 1e-4
accuracies = st.lists(st.floats(min_value=0, max_value=1), min_size=2, max_size=6)
samples = st.lists(accuracies, min_size=2, max_size=6)


def test_a_t_interval_by_hand() -> None:
    # mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776445: half width 2.776445 * sqrt(2.5 / 5) = 1.963243
    found = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 1.036757, 4.963243), abs=1e-6)
    assert t_interval([0.5, 0.5]).low == t_interval([0.5, 0.5]).high == 0.5


def test_no_interval_holds_what_no_accuracy_can_be() -> None:
    found = t_interval([0.1, 0.8]).within(0, 1)
    assert (found.low, found.high) == (0, 1)
    pair = [[0.1, 0.8], [0.9, 0.3]]
    differences = [contrasts(pair, [(0, 1)], resolution=RESOLUTION)[0].difference]
    differences += [against.difference for against in compare(pair, resolution=RESOLUTION).against]
    assert {(d.low, d.high) for d in differences} == {(-1, 1), (0, 0)}


def test_an_interval_over_seeds_and_images_by_hand() -> None:
    # Images' means 2, 4, 6: variance 4 over 3 images. Seeds' means 3, 5: variance 2 over 2 seeds.
    found = two_way_interval(np.array([[1.0, 3.0, 5.0], [3.0, 5.0, 7.0]]))
    total, freedom = 4 / 3 + 1, (4 / 3 + 1) ** 2 / ((4 / 3) ** 2 / 2 + 1**2 / 1)
    half = stats.t.ppf(0.975, freedom) * total**0.5
    assert (found.value, found.low, found.high) == pytest.approx((4, 4 - half, 4 + half))
    # Of two groups the images' differences, 1, 1 and 4: variance 3 over 3; the second has but one seed.
    found = two_way_interval(np.array([[1.0, 3.0, 5.0], [3.0, 5.0, 7.0]]), np.array([[1.0, 3.0, 2.0]]))
    total, freedom = 3 / 3 + 1, (3 / 3 + 1) ** 2 / (1 / 2 + 1 / 1)
    half = stats.t.ppf(0.975, freedom) * total**0.5
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))


def test_one_image_says_nothing_of_others_and_equal_values_have_no_spread() -> None:
    one = two_way_interval(np.array([[0.5], [0.7]])).within(-1, 1)
    assert (one.value, one.low, one.high) == pytest.approx((0.6, -1, 1))
    same = two_way_interval(np.full((3, 4), 0.25), np.full((2, 4), 0.25))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_interval_of_two_groups_holds_the_truth_as_often_as_it_says() -> None:
    """Five seeds, 30 images that both groups share: hard images are hard for both, and some are so for one only."""
    random, missed, repetitions = np.random.default_rng(0), 0, 400
    for _ in range(repetitions):
        shared = random.normal(0, 0.3, 30)
        groups = [
            shared + random.normal(0, 0.1, 30) + random.normal(0, 0.05, (5, 1)) + random.normal(0, 0.1, (5, 30))
            for _ in range(2)
        ]
        found = two_way_interval(*groups)
        missed += not found.low <= 0 <= found.high
    assert stats.binomtest(missed, repetitions, LEVEL).pvalue > 0.001, missed
    assert found.high - found.low < 0.25, "what both share is no noise"


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.2 times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=8))
def test_holm_is_between_nothing_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= min(1.0, len(p_values) * p) + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    for i, j in zip(np.argsort(p_values)[:-1], np.argsort(p_values)[1:], strict=True):
        assert adjusted[i] <= adjusted[j]


def test_variances_that_agree_are_pooled_and_those_that_differ_are_kept() -> None:
    freedom = np.full(6, 4.0)
    pooled, shared = moderated_variances(np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95]), freedom)
    assert pooled == pytest.approx(np.full(6, 1.0))
    assert shared == pytest.approx(np.full(6, 24.0))
    wild = np.array([1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4])
    kept, few = moderated_variances(wild, freedom)
    assert np.all(np.diff(kept) > 0)
    assert np.all(few < 5)
    assert kept[1:] / wild[1:] == pytest.approx(np.ones(5), rel=0.25)


def test_the_prior_of_the_variances_is_found_again() -> None:
    # Variances drawn as the method assumes: prior degrees of freedom 6 and variance 2, ten thousand arms of 5 seeds.
    random = np.random.default_rng(0)
    true = 2.0 * 6 / random.chisquare(6, 10_000)
    freedom = np.full(10_000, 4.0)
    _, shared = moderated_variances(true * random.chisquare(4, 10_000) / 4, freedom)
    assert shared[0] == pytest.approx(10, rel=0.1)


def test_two_arms_are_a_plain_t_test() -> None:
    a, b = [0.95, 0.96, 0.97, 0.96, 0.95], [0.91, 0.92, 0.93, 0.91, 0.93]
    found = compare([a, b], resolution=RESOLUTION)
    expected = stats.ttest_ind(a, b)
    assert (found.best, found.named) == (0, True)
    assert found.against[1].p_value == pytest.approx(expected.pvalue)
    assert found.runner_up_p_value == pytest.approx(expected.pvalue / 2)
    found_of_80 = (stats.t.ppf(0.975, 8) + stats.t.ppf(0.8, 8)) * (np.var(a, ddof=1) / 5 + np.var(b, ddof=1) / 5) ** 0.5
    assert [against.detectable for against in found.against] == pytest.approx([0, found_of_80])
    interval = stats.ttest_ind(b, a).confidence_interval()
    difference = found.against[1].difference
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_p_values_count_for_all_pairs_of_what_is_left() -> None:
    # Equal spreads, so the pooled variance is that of each: 5e-5, 12 degrees of freedom, standard error sqrt(2e-5).
    shape = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * np.sqrt(5e-5 / 0.625)
    found = compare([list(m + shape) for m in (0.96, 0.95, 0.93)], resolution=RESOLUTION)
    p = [2 * stats.t.sf(d / np.sqrt(2e-5), 12) for d in (0.01, 0.03)]
    assert [a.p_value for a in found.against] == pytest.approx([1.0, p[0], 3 * p[1]], rel=1e-6)
    assert [a.tied for a in found.against] == [True, not found.named, False]


def test_one_clear_loser_leaves_a_tie() -> None:
    found = compare([[0.90, 0.91, 0.92], [0.91, 0.90, 0.92], [0.20, 0.21, 0.22]], resolution=RESOLUTION)
    assert not found.named
    assert [a.tied for a in found.against] == [True, True, False]


def test_equal_accuracies_say_nothing() -> None:
    found = compare([[0.9] * 5] * 4, resolution=1 / 360)
    assert not found.named
    assert all(a.tied for a in found.against)
    assert found.shrunken == pytest.approx([0.9] * 4)
    alone = compare([[0.9, 0.8]], resolution=1 / 360)
    assert (alone.named, alone.against[0].tied, alone.shrunken) == (False, True, pytest.approx((0.85,)))


@given(samples)
def test_the_best_is_tied_with_itself_and_shrinking_keeps_the_order(drawn: list[list[float]]) -> None:
    found = compare(drawn, resolution=RESOLUTION)
    means = [float(np.mean(sample)) for sample in drawn]
    assert means[found.best] == max(means)
    assert found.against[found.best].tied
    assert 0 <= found.shrinkage <= 1
    grand = float(np.mean(means))
    for mean, shrunken in zip(means, found.shrunken, strict=True):
        assert min(mean, grand) - 1e-12 <= shrunken <= max(mean, grand) + 1e-12
    if found.named:
        assert sum(a.tied for a in found.against) == 1


def test_contrasts_are_corrected_for_their_number() -> None:
    shape = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * np.sqrt(5e-5 / 0.625)
    arms = [list(m + shape) for m in (0.96, 0.95, 0.97, 0.96)]
    found = contrasts(arms, [(0, 1), (0, 2), (0, 3)], resolution=RESOLUTION)
    p = 2 * stats.t.sf(0.01 / np.sqrt(2e-5), 16)
    assert [c.p_value for c in found] == pytest.approx([min(1, 3 * p), min(1, 3 * p), 1.0])
    half = stats.t.ppf(1 - LEVEL / 6, 16) * np.sqrt(2e-5)
    assert (found[0].difference.low, found[0].difference.high) == pytest.approx((0.01 - half, 0.01 + half))
    assert found[0].difference.value == pytest.approx(-found[1].difference.value)
    assert contrasts(arms, [], resolution=RESOLUTION) == []


def confirmed(random: np.random.Generator, *, better_by: float, others: int = 0) -> tuple[list[list[float]], list[int]]:
    """A search of 31 configurations by one noisy score each, and 5 fresh seeds of its best 5, the best first.

    Returns the samples, in units of the seeds' deviation, and which configuration each is; 0 is the better one.
    """
    means = np.zeros(31)
    means[0] = better_by
    top = np.argsort(-(means + random.standard_normal(31)))[:5]
    drawn = [list(means[i] + random.standard_normal(5)) for i in top]
    return drawn + [list(random.standard_normal(5)) for _ in range(others)], [int(i) for i in top]


def test_a_configuration_that_is_better_is_named() -> None:
    random = np.random.default_rng(20261121)
    named = 0
    for _ in range(200):
        arms, which = confirmed(random, better_by=3.0)
        found = compare(arms, resolution=RESOLUTION)
        named += found.named and which[found.best] == 0
    assert named >= 190


def test_among_equals_hardly_anything_is_claimed() -> None:
    random = np.random.default_rng(20261121)
    claims = helps = beats = 0
    for _ in range(200):
        arms, _ = confirmed(random, better_by=0.0)
        # The strictest count: any arm that is said to be worse than another.
        claims += not all(against.tied for against in compare(arms, resolution=RESOLUTION).against)
        more, _ = confirmed(random, better_by=0.0, others=7)
        found = compare(more, resolution=RESOLUTION)
        asked = contrasts(more, [(0, 5), (0, 6), (0, 7)], resolution=RESOLUTION)
        helps += found.named or any(contrast.significant for contrast in asked)
        controls = contrasts(more, [(0, control) for control in range(8, 12)], resolution=RESOLUTION)
        beats += any(contrast.significant for contrast in controls)
    assert claims <= 15
    assert helps <= 15
    assert beats <= 15


def test_an_interval_reaches_as_far_as_its_farther_end() -> None:
    assert Estimate(value=0.99, low=0.96, high=1.02).within(0, 1).reach == pytest.approx(0.03)
    assert Estimate(value=0.01, low=-0.02, high=0.04).within(0, 1).reach == pytest.approx(0.03)


@pytest.mark.parametrize(("p", "said"), [(0.0004, "p < 0.001"), (0.03, "p = 0.030"), (0.5, "p = 0.50")])
def test_a_small_p_value_is_told_as_less(p: float, said: str) -> None:
    assert name_p_value(p) == said
