"""Expectation of one more training of an exported study: its accuracy, and how sure that is."""

import math
from collections.abc import Sequence

import scipy

from igkd_hpo.bundle.contents import Expected
from igkd_hpo.config.space import LARGEST_SEED
from igkd_hpo.search.best import BestTrial
from igkd_hpo.words import points


def expected_of(best: BestTrial, accuracy: float, *, images: int) -> Expected:
    """Return what to expect of one more training of an exported trial: from all its seeds where it was confirmed.

    Args:
        accuracy: of the network in the bundle, a fraction of the validation images.
        images: how many these are.
    """
    if best.confirmed is None or len(best.confirmed["seeds"]) < 2:
        return from_one_run(accuracy, images=images, seed=best.seed)
    seeds = best.confirmed["seeds"]
    fresh = max(seeds) + 1 if max(seeds) < LARGEST_SEED else min(seeds) - 1
    return from_runs(best.confirmed["validation_accuracies"], images=images, next_seed=fresh)


def from_runs(accuracies: Sequence[float], *, images: int, next_seed: int) -> Expected:
    """Expect the 95 % prediction interval of one more run after two runs or more with fresh seeds (Student's t)."""
    n = len(accuracies)
    mean = sum(accuracies) / n
    # Accuracies are whole images: a few that are equal by chance are not equal without end.
    rounding = 1 / (12 * images**2)
    deviation = math.sqrt(sum((accuracy - mean) ** 2 for accuracy in accuracies) / (n - 1) + rounding)
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    basis = (
        f"the 95 % prediction interval for one more seed after {n} of them, "
        f"with a standard deviation of {points(deviation, 2, signed=False)} points"
    )
    return _expect(mean, half, runs=n, seed=next_seed, basis=basis)


def from_one_run(accuracy: float, *, images: int, seed: int) -> Expected:
    """Expect the same seed to stay within a stated tolerance elsewhere: a single run has no interval.

    Two students that are equally good differ on `images` images by less than this 95 times in 100, if they err
    independently; they see the same images, so that it is rather less.
    """
    share = (accuracy * images + 1) / (images + 2)  # away from 0 and 1, where the formula gives no room at all
    half = 1.96 * math.sqrt(2 * share * (1 - share) / images)
    basis = (
        f"a tolerance of {points(half, 2, signed=False)} points, what two equally good students may differ by on "
        f"{images} images: this bundle comes from a single run, which has no interval of its own"
    )
    return _expect(accuracy, half, runs=1, seed=seed, basis=basis)


def _expect(mean: float, half: float, *, runs: int, seed: int, basis: str) -> Expected:
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return Expected(validation_accuracy=mean, runs=runs, low=low, high=high, seed=seed, basis=basis)
