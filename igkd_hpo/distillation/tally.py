"""Tally of a network's answers, class by class, as plain values; what metrics make of it, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from igkd_hpo.distillation.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of a network's answers about images, an entry for each class in every list.

    Args:
        images: that have this label; 0 where a class does not occur.
        right: of these, that were taken for it.
        answered: images that were taken for it, rightly or not.
        mistaken_for: the class that most others of these images were taken for, of equals the first; -1 where none was.
        mistaken: how many these are.
    """

    images: Sequence[int]
    right: Sequence[int]
    answered: Sequence[int]
    mistaken_for: Sequence[int]
    mistaken: Sequence[int]

    @classmethod
    def added(cls, tallies: "Sequence[Tally]") -> Self:
        """Add up one or more tallies of the same images, as of several seeds."""

        def total(rows: Sequence[Sequence[int]]) -> list[int]:
            return [sum(column) for column in zip(*rows, strict=True)]

        confused: list[tuple[int, int]] = []
        for number in range(len(tallies[0].images)):
            counts: dict[int, int] = {}
            for tally in tallies:
                if (other := tally.mistaken_for[number]) >= 0:
                    counts[other] = counts.get(other, 0) + tally.mistaken[number]
            confused.append(max(counts.items(), key=lambda pair: (pair[1], -pair[0]), default=(-1, 0)))
        return cls(
            images=total([tally.images for tally in tallies]),
            right=total([tally.right for tally in tallies]),
            answered=total([tally.answered for tally in tallies]),
            mistaken_for=[other for other, _ in confused],
            mistaken=[count for _, count in confused],
        )

    def sampling_error(self, metric: Metric) -> float:
        """Return the standard error of a metric's value over other samples of as many images of each class.

        Images of a class are right or wrong by chance and independently of each other. What one of them is worth is the
        derivative of the metric: 1 over its class's images in recall; F1 also falls where a wrong answer lands, which
        is where wrong answers land on average. Accuracy does not hold classes apart: its images are one class.

        One right and one wrong image are added to each class, away from 0 and 1, where a binomial has no spread at all;
        not for accuracy, as ever.
        """
        occurring = [k for k, count in enumerate(self.images) if count]
        total = sum(self.images)
        if metric == "accuracy":
            share = sum(self.right) / total
            return float((share * (1 - share) / total) ** 0.5)
        n_classes, variance = len(occurring), 0.0
        wrongly = {k: self.answered[k] - self.right[k] for k in occurring}
        landing = 0.0
        if metric == "macro_f1" and (wrong := sum(wrongly.values())):
            lost = (wrongly[k] * 2 * self.right[k] / (self.images[k] + self.answered[k]) ** 2 for k in occurring)
            landing = sum(lost) / wrong
        for k in occurring:
            count, right, answered = self.images[k], self.right[k], self.answered[k]
            worth = 1 / count
            if metric == "macro_f1":
                worth = 2 * (count + answered - right) / (count + answered) ** 2 + landing
            share = (right + 1) / (count + 2)
            variance += count * share * (1 - share) * (worth / n_classes) ** 2
        return float(variance**0.5)


def resolution(images: Sequence[int], metric: Metric) -> float:
    """Return the step by which a metric's value can change: its rounding has a variance of this squared over 12.

    Of accuracy that is 1 over all images. Of the others it is the steps of all classes together, each of which is
    rounded on its own: the root of their squares' sum. F1 has about the steps of recall.

    Args:
        images: of each class; some above 0.
    """
    counts = [count for count in images if count]
    if metric == "accuracy":
        return 1 / sum(counts)
    return float(sum(count**-2 for count in counts) ** 0.5 / len(counts))


def largest_step(images: Sequence[int], metric: Metric) -> float:
    """Return by how much one image can change a metric's value: one of the rarest class; F1 about as much as recall."""
    counts = [count for count in images if count]
    return 1 / sum(counts) if metric == "accuracy" else 1 / (min(counts) * len(counts))


def of_guessing(images: Sequence[int], metric: Metric) -> float:
    """Return the value of always guessing the most common class, which no other such guess exceeds.

    Args:
        images: of each class; some above 0.
    """
    total, most, n_classes = sum(images), max(images), sum(count > 0 for count in images)
    match metric:
        case "accuracy":
            return most / total
        case "balanced_accuracy":
            return 1 / n_classes
        case "macro_f1":
            return 2 * most / (most + total) / n_classes
