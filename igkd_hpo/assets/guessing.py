"""Guessing, which a teacher must be better than: how good it is in a metric, and whether a result may come of it."""

import numpy as np
import scipy
import torch
from torch import Tensor

from igkd_hpo.distillation.evaluation import score
from igkd_hpo.distillation.metrics import P_VALUE, Metric
from igkd_hpo.distillation.tally import of_guessing

_MOST_SHUFFLES = 20_000
_FEWEST_SHUFFLES = 2_000  # twice what the p-value needs
_SHUFFLED = 50_000_000  # labels in all: about a second


def beats_guessing(answers: Tensor, labels: Tensor, metric: Metric, *, num_classes: int) -> bool:
    """Return whether answers are better than those that do not depend on the image.

    Accuracy is compared with the share of the most common class (binomial test). The other metrics must be above what
    the best single answer gets, and above what the same answers get when they are dealt to the images by chance
    (permutation test): exactly where there are two classes, else by shuffling, which is the same in each run. Fifty-
    seven images to three is enough for that, though their accuracy proves nothing: guessing has 95 %.

    Args:
        answers, labels: int64 (N,), on the CPU.
    """
    right = answers == labels
    if metric == "accuracy":
        return beats_share(right, torch.bincount(labels).max().item() / len(labels))
    images, answered = (torch.bincount(some, minlength=num_classes) for some in (labels, answers))
    reached = score(answers, labels, metric, num_classes=num_classes, dtype=torch.float64).item()
    if reached <= of_guessing(images.tolist(), metric):
        return False
    if num_classes == 2 or int(((images > 0) | (answered > 0)).sum()) == 2:
        rare = int(images.masked_fill(images == 0, len(labels) + 1).argmin())
        hits, population = int((right & (labels == rare)).sum()), len(labels)
        drawn, marked = int(answered[rare]), int(images[rare])
        return bool(scipy.stats.hypergeom.sf(hits - 1, population, marked, drawn) < P_VALUE)
    # As often as classes are in labels and answers, each right answer of a class is worth the same.
    worth = (1 / images if metric == "balanced_accuracy" else 2 / (images + answered)).masked_fill(images == 0, 0.0)
    return _chance(answers.numpy(), labels.numpy(), worth.double().numpy()) < P_VALUE


def beats_share(right: Tensor, share: float) -> bool:
    """Return whether answers, bool (N,), are right more often than this share by more than chance."""
    return bool(scipy.stats.binomtest(int(right.sum()), len(right), share, alternative="greater").pvalue < P_VALUE)


def _chance(answers: np.ndarray, labels: np.ndarray, worth: np.ndarray) -> float:
    """Return the p-value of the sum of what right answers are worth, by shuffled labels."""
    generator = np.random.default_rng(0)
    shuffled, as_good = labels.copy(), 0
    reached = worth[labels[answers == labels]].sum() * (1 - 1e-12)  # sums in another order round otherwise
    shuffles = min(_MOST_SHUFFLES, max(_FEWEST_SHUFFLES, _SHUFFLED // len(labels)))
    for _ in range(shuffles):
        generator.shuffle(shuffled)
        as_good += bool(worth[shuffled[answers == shuffled]].sum() >= reached)
        if as_good > shuffles * P_VALUE:
            break
    return (as_good + 1) / (shuffles + 1)
