"""Expectation of one more training of an exported study: its accuracy, and how sure that is."""

import math
from collections.abc import Sequence

import scipy

from igkd_hpo.bundle.contents import Expected
from igkd_hpo.config.space import LARGEST_SEED
from igkd_hpo.distillation.tally import Tally, resolution
from igkd_hpo.search.best import BestTrial
from igkd_hpo.words import points


def expected_of(best: BestTrial, accuracy: float, *, images: int, tally: Tally | None = None) -> Expected:
    """Return what to expect of one more training of an exported trial: from all its seeds where it was confirmed.

    Args:
        accuracy: of the network in the bundle, a fraction of the validation images; or its value of another metric.
        images: how many these are.
        tally: of its answers, where the metric is another one.
    """
    if best.confirmed is None or len(best.confirmed["seeds"]) < 2:
        error = None if tally is None else tally.sampling_error(best.metric)
        alone = from_one_run(accuracy, images=images, seed=best.seed, error=error)
        return alone.model_copy(update={"metric": best.metric})
    seeds = best.confirmed["seeds"]
    fresh = max(seeds) + 1 if max(seeds) < LARGEST_SEED else min(seeds) - 1
    step = 1 / images if tally is None else resolution(tally.images, best.metric)
    expected = from_runs(best.confirmed["validation_accuracies"], step=step, next_seed=fresh)
    return expected.model_copy(update={"metric": best.metric})


def from_runs(accuracies: Sequence[float], *, step: float, next_seed: int) -> Expected:
    """Expect the 95 % prediction interval of one more run after two runs or more with fresh seeds (Student's t).

    Args:
        step: between two values that the metric can have: 1 over the images, of accuracy.
    """
    n = len(accuracies)
    mean = sum(accuracies) / n
    rounding = step**2 / 12  # values are of whole images: a few that are equal by chance are not equal without end
    deviation = math.sqrt(sum((accuracy - mean) ** 2 for accuracy in accuracies) / (n - 1) + rounding)
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    basis = (
        f"the 95 % prediction interval for one more seed after {n} of them, "
        f"with a standard deviation of {points(deviation, 2, signed=False)} points"
    )
    return _expect(mean, half, runs=n, seed=next_seed, basis=basis)


def from_one_run(accuracy: float, *, images: int, seed: int, error: float | None = None) -> Expected:
    """Expect the same seed to stay within a stated tolerance elsewhere: a single run has no interval.

    Two students that are equally good differ on `images` images by less than this 95 times in 100, if they err
    independently; they see the same images, so that it is rather less.

    Args:
        error: the standard error of the value over samples of images; None is that of an accuracy.
    """
    if error is None:
        share = (accuracy * images + 1) / (images + 2)  # away from 0 and 1, where the formula gives no room at all
        error = math.sqrt(share * (1 - share) / images)
    half = 1.96 * math.sqrt(2) * error
    basis = (
        f"a tolerance of {points(half, 2, signed=False)} points, what two equally good students may differ by on "
        f"{images} images: this bundle comes from a single run, which has no interval of its own"
    )
    return _expect(accuracy, half, runs=1, seed=seed, basis=basis)


def _expect(mean: float, half: float, *, runs: int, seed: int, basis: str) -> Expected:
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return Expected(validation_accuracy=mean, runs=runs, low=low, high=high, seed=seed, basis=basis)
