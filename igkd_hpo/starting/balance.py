"""The splits of a first study, and the metric that goes with how even its classes are."""

import math
from dataclasses import dataclass

from igkd_hpo.assets.splits import LARGEST_FRACTION, fewest_images, split_sizes
from igkd_hpo.distillation.metrics import COMMON_CLASS, P_VALUE, UNEVEN_CLASSES, Metric
from igkd_hpo.errors import DataError
from igkd_hpo.starting.images import ImageFacts
from igkd_hpo.words import counted

TEST_FRACTION = 0.2
_FRACTIONS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
_FINEST_STEP = 0.01  # of the metric by one validation image; `doctor` warns beyond
_GOOD = 0.9  # share of each class that a good teacher of few images is right on
_MANY = 1000  # validation images, with which it is always told


@dataclass(frozen=True, kw_only=True)
class Balance:
    """The splits and the metric, with reasons.

    Args:
        n_train, n_validation, n_test: images of the study's splits.
        validation_fraction: None where the images bring a validation split.
        test_fraction: None where they bring a test split.
    """

    n_train: int
    n_validation: int
    n_test: int
    validation_fraction: float | None
    validation_because: str
    test_fraction: float | None
    metric: Metric
    metric_because: str


def choose_balance(images: ImageFacts) -> Balance:
    """Choose splits and metric. Raises DataError where a class has too few images to be in every split."""
    own_validation, own_test = any(images.validation), any(images.test)
    test_fraction = None if own_test else TEST_FRACTION
    counts = [count - math.ceil(count * (test_fraction or 0)) for count in images.train]
    if own_validation:
        _require(images, test_fraction or 0.0, 0.0)
        metric, because = _choose_metric(images, counts, list(images.validation))
        n_train, n_validation, n_test = _sizes(images, test_fraction, None)
        return Balance(
            n_train=n_train,
            n_validation=n_validation,
            n_test=n_test,
            validation_fraction=None,
            validation_because="",
            test_fraction=test_fraction,
            metric=metric,
            metric_because=because,
        )
    fraction = _choose_fraction(images, counts, test_fraction or 0.0)
    validation = [_share(count, fraction) for count in counts]
    metric, because = _choose_metric(images, counts, validation)
    n_train, n_validation, n_test = _sizes(images, test_fraction, fraction)
    return Balance(
        n_train=n_train,
        n_validation=n_validation,
        n_test=n_test,
        validation_fraction=fraction,
        validation_because=f"{n_validation:,} images decide between trials"
        + (", a larger share since some classes have few images" if fraction > _FRACTIONS[0] else ""),
        test_fraction=test_fraction,
        metric=metric,
        metric_because=because,
    )


def _sizes(images: ImageFacts, test_fraction: float | None, validation_fraction: float | None) -> tuple[int, int, int]:
    """Return the images of the three splits, of which those without a fraction are there already."""
    n_train, n_validation, n_test = split_sizes(
        sum(images.train), test_fraction=test_fraction or 0.0, validation_fraction=validation_fraction or 0.0
    )
    return n_train, n_validation + sum(images.validation), n_test + sum(images.test)


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction))


def _choose_fraction(images: ImageFacts, counts: list[int], test_fraction: float) -> float:
    possible = [share for share in _FRACTIONS if min(images.train) >= fewest_images(test_fraction, share)]
    if not possible:
        _require(images, test_fraction, _FRACTIONS[-1])
    for share in possible:
        validation = [_share(count, share) for count in counts]
        metric, _ = _choose_metric(images, counts, validation)
        even = metric == "accuracy"
        step = 1 / sum(validation) if even else 1 / (len(validation) * min(validation))
        told = _told_from_guessing(validation, metric)
        if told and (step <= _FINEST_STEP or share >= LARGEST_FRACTION):
            return share  # a larger one only where a teacher could not be told from guessing
    return possible[-1]


def _require(images: ImageFacts, test_fraction: float, validation_fraction: float) -> None:
    """Raise DataError where the rarest class has fewer images than the splits need."""
    fewest, needed = min(images.train), 1
    if test_fraction or validation_fraction:
        needed = fewest_images(test_fraction, validation_fraction)
    if fewest < needed:
        rarest = images.class_names[images.train.index(fewest)]
        raise DataError(
            f"class {rarest!r} has {counted(fewest, 'image')} to train on, and the splits need {needed} of every "
            "class; add images, or leave the class out"
        )


def _told_from_guessing(validation: list[int], metric: Metric) -> bool:
    """Return whether a good teacher could be told from one that guesses, by the tests of `assets.guessing`.

    Of many classes that test shuffles labels; what it says of accuracy is near enough to choose a share by.
    """
    total, largest, rare = sum(validation), max(validation), min(validation)
    if total > _MANY:
        return True
    if metric == "accuracy" or len(validation) > 2:
        share, right = largest / total, math.floor(_GOOD * total)
        chance = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(right, total + 1))
        return chance < P_VALUE
    hits, common = math.floor(_GOOD * rare), total - rare
    drawn = hits + math.ceil((1 - _GOOD) * common)  # that are taken for the rare class
    ways = sum(math.comb(rare, k) * math.comb(common, drawn - k) for k in range(hits, min(rare, drawn) + 1))
    return ways / math.comb(total, drawn) < P_VALUE


def _choose_metric(images: ImageFacts, counts: list[int], validation: list[int]) -> tuple[Metric, str]:
    fewest, largest = min(counts), max(counts)
    rare, common = (images.class_names[counts.index(count)] for count in (fewest, largest))
    if largest >= UNEVEN_CLASSES * fewest or max(validation) >= COMMON_CLASS * sum(validation):
        spread = f"{images.train[counts.index(largest)]:,} images of {common} to {images.train[counts.index(fewest)]:,}"
        return "balanced_accuracy", f"{spread} of {rare}: accuracy would hardly count the rare class"
    return "accuracy", ""
