"""Statistics of repeated trainings: intervals, and which arms of a comparison are as good as the best.

An arm is one configuration, trained with several seeds; a sample is its accuracies. Numbers in, numbers out. Why these
tests and no others, with their measured error rates: docs/decisions/0005-how-confirm-decides.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

LEVEL = 0.05
"""Share of studies in which a statement may be wrong: naming, leaving out of the tie set, and the contrasts, each."""

_LARGEST_PRIOR = 1e4  # degrees of freedom; beyond it the arms' variances are taken as equal

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean or difference of means, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Return the distance from the value to the farther end: the other one may be cut off."""
        return max(self.high - self.value, self.value - self.low)

    def within(self, least: float, most: float) -> "Estimate":
        """Cut the interval to the values that are possible, which costs it no coverage."""
        return Estimate(value=self.value, low=max(least, self.low), high=min(most, self.high))


@dataclass(frozen=True, kw_only=True)
class Against:
    """Comparison of an arm with the best one.

    Args:
        difference: this arm's mean minus the best one's, with an interval that holds for all arms at once.
        p_value: that an arm as good as the best looks so much worse, over all arms; 1 for the best itself.
        tied: it cannot be told from the best.
        detectable: the difference to the best that would be found in 80 of 100 repetitions; 0 for the best itself.
    """

    difference: Estimate
    p_value: float
    tied: bool
    detectable: float


@dataclass(frozen=True, kw_only=True)
class ArmComparison:
    """Comparison of all arms with the best.

    Args:
        best: index of the arm with the highest mean; of equals, the first.
        named: no other arm is as good: all of them, the next one too, are significantly worse.
        runner_up_p_value: that the runner-up is as good (one-sided).
        shrunken: each arm's estimated true mean, shrunk towards the mean of all arms.
        shrinkage: the share of a difference between arms that is left by it, from 0 (all noise) to 1.
    """

    best: int
    named: bool
    runner_up_p_value: float
    against: tuple[Against, ...]
    shrunken: tuple[float, ...]
    shrinkage: float


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Difference of two means that was asked for before the data were there.

    Args:
        difference: with an interval that holds for all contrasts at once.
        p_value: two-sided, after Holm.
        detectable: the difference that would be found in 80 of 100 repetitions.
    """

    difference: Estimate
    p_value: float
    detectable: float

    @property
    def significant(self) -> bool:
        """Tell whether the sign of the difference can be told."""
        return self.p_value <= LEVEL


def t_interval(sample: Sequence[float]) -> Estimate:
    """Return the mean and its 95 % t interval, of 2 values or more."""
    mean, spread = float(np.mean(sample)), float(np.std(sample, ddof=1))
    half = float(scipy.stats.t.ppf(1 - LEVEL / 2, len(sample) - 1)) * spread / len(sample) ** 0.5
    return Estimate(value=mean, low=mean - half, high=mean + half)


def two_way_interval(*groups: Floats) -> Estimate:
    """Return the mean over seeds and images with its 95 % interval; of two groups, the first minus the second.

    Seeds and images are samples. The images are the same for all, the seeds of two groups are independent. Both
    variances are added, which counts what a seed does to one image twice: the interval is a little too wide. One seed
    is taken for the only one that there is; of one image nothing is known of others, and the interval is infinite.

    Args:
        groups: one or two, float64 (S, N): a row for each seed, a column for each image.

    Source: degrees of freedom after Satterthwaite (1946), An approximate distribution of estimates of variance
    components.
    """
    first, *others = groups
    by_image = first.mean(axis=0) - (others[0].mean(axis=0) if others else 0.0)
    mean, n_images = float(by_image.mean()), len(by_image)
    if n_images < 2:
        return Estimate(value=mean, low=-math.inf, high=math.inf)
    samples = [by_image, *(group.mean(axis=1) for group in groups if len(group) > 1)]
    variances = np.array([float(np.var(sample, ddof=1)) / len(sample) for sample in samples])
    freedom = np.array([len(sample) - 1 for sample in samples], dtype=float)
    total = float(variances.sum())
    if total == 0:
        return Estimate(value=mean, low=mean, high=mean)
    shared = total**2 / float((variances**2 / freedom).sum())
    half = float(scipy.stats.t.ppf(1 - LEVEL / 2, shared)) * total**0.5
    return Estimate(value=mean, low=mean - half, high=mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values that hold for all at once (Holm, 1979), in the order given."""
    order = np.argsort(p_values)
    stepped = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(p) for p in adjusted]


def moderated_variances(variances: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Return each arm's variance, drawn towards the common one as far as the arms agree, and its degrees of freedom.

    Five seeds say little about an arm's variance; twelve arms say much about their usual one. Source: Smyth (2004),
    Linear models and empirical Bayes methods, section 6.2: a scaled inverse chi-square prior, fitted by the moments of
    log variances.

    Args:
        variances: above 0.
        freedom: of each, 1 or more.
    """
    if len(variances) < 2:
        return variances, freedom
    total = float(freedom.sum())
    log_variance = np.log(variances) - scipy.special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(np.var(log_variance, ddof=1) - scipy.special.polygamma(1, freedom / 2).mean())
    prior = 2 * _inverse_trigamma(excess) if excess > 0 else np.inf
    if prior >= _LARGEST_PRIOR:
        common = float((freedom * variances).sum() / total)
        return np.full_like(variances, common), np.full_like(variances, total)
    centre = float(np.exp(log_variance.mean() + scipy.special.digamma(prior / 2) - np.log(prior / 2)))
    moderated = (prior * centre + freedom * variances) / (prior + freedom)
    return moderated, np.minimum(freedom + prior, total)


def compare(samples: Sequence[Sequence[float]], *, resolution: float) -> ArmComparison:
    """Find the arm with the highest mean, the others that may be as good, and the means without luck.

    The best is *named* when it beats each other arm by a one-sided t-test: the runner-up decides, and its level needs
    no correction for the choice of the best (Gutmann and Maymin, 1987, Is the selected population the best?). Arms are
    left out of the tie set one after the other, the clearest first, by two-sided t-tests in Holm's manner. Because the
    best was chosen after the fact, each p-value counts for all pairs of the arms that are left. Means are shrunk as by
    Efron and Morris (1975, Data analysis using Stein's estimator).

    Args:
        samples: accuracies of the arms, fractions, two or more each; one arm alone is never named.
        resolution: the smallest step between two accuracies, 1 over the number of images, or what `tally.resolution`
            says of another metric; above 0. Rounding to it is the least variance that an arm can have.
    """
    means, squared_errors, freedom = _estimate_means(samples, resolution)
    best = int(np.argmax(means))
    differences = means - means[best]
    errors = np.sqrt(squared_errors + squared_errors[best])
    shared = np.minimum(freedom, freedom[best])
    t = -differences / errors
    others = [i for i in np.argsort(-t, kind="stable") if i != best]
    p_values = np.ones(len(samples))
    reached = 0.0
    for left, i in zip(range(len(samples), 1, -1), others, strict=True):
        reached = max(reached, min(1.0, math.comb(left, 2) * float(2 * scipy.stats.t.sf(t[i], shared[i]))))
        p_values[i] = reached
    one_sided = max((float(scipy.stats.t.sf(t[i], shared[i])) for i in others), default=1.0)
    named = one_sided <= LEVEL
    errors[best] = 0.0
    critical = scipy.stats.t.ppf(1 - LEVEL / 2 / max(1, math.comb(len(samples), 2)), shared)
    reach, detectable = critical * errors, (critical + scipy.stats.t.ppf(0.8, shared)) * errors
    shrinkage = 1.0  # three arms or fewer cannot tell which share of the spread of the means is noise
    between = float(((means - means.mean()) ** 2).sum())
    if len(means) > 3 and between > 0:
        shrinkage = max(0.0, 1 - (len(means) - 3) * float(squared_errors.mean()) / between)
    return ArmComparison(
        best=best,
        named=named,
        runner_up_p_value=one_sided,
        against=tuple(
            Against(
                difference=Estimate(value=float(d), low=float(d - r), high=float(d + r)).within(-1, 1),
                p_value=float(p),
                tied=i == best or (not named and float(p) > LEVEL),
                detectable=float(found),
            )
            for i, (d, r, p, found) in enumerate(zip(differences, reach, p_values, detectable, strict=True))
        ),
        shrunken=tuple(float(m) for m in means.mean() + shrinkage * (means - means.mean())),
        shrinkage=shrinkage,
    )


def contrasts(
    samples: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], *, resolution: float
) -> list[Contrast]:
    """Return differences of means, first minus second of each pair, tested two-sided and corrected after Holm.

    Args:
        samples: of all arms: those that are not in a pair help to estimate the variance.
        pairs: indices, chosen before the data were there.
        resolution: as for `compare`.
    """
    if not pairs:
        return []
    means, squared_errors, freedom = _estimate_means(samples, resolution)
    first, second = np.array(pairs).T
    differences = means[first] - means[second]
    errors = np.sqrt(squared_errors[first] + squared_errors[second])
    shared = np.minimum(freedom[first], freedom[second])
    adjusted = holm([float(p) for p in 2 * scipy.stats.t.sf(np.abs(differences) / errors, shared)])
    critical = scipy.stats.t.ppf(1 - LEVEL / 2 / len(pairs), shared)
    return [
        Contrast(
            difference=Estimate(value=float(d), low=float(d - c * e), high=float(d + c * e)).within(-1, 1),
            p_value=p,
            detectable=float((c + scipy.stats.t.ppf(0.8, f)) * e),
        )
        for d, e, c, f, p in zip(differences, errors, critical, shared, adjusted, strict=True)
    ]


def _estimate_means(samples: Sequence[Sequence[float]], resolution: float) -> tuple[Floats, Floats, Floats]:
    """Return the means of samples, their squared standard errors by moderated variances, and the degrees of freedom."""
    sizes = np.array([len(sample) for sample in samples], dtype=float)
    variances = np.array([max(float(np.var(sample, ddof=1)), resolution**2 / 12) for sample in samples])
    moderated, freedom = moderated_variances(variances, sizes - 1)
    return np.array([np.mean(sample) for sample in samples]), moderated / sizes, freedom


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value > 0, by Newton's steps on 1 / trigamma (Smyth, 2004, appendix)."""
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(scipy.special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(scipy.special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x
