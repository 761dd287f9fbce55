"""Steps up in size between confirmed students of a frontier: what each buys, on the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from igkd_hpo.confirmation.statistics import Contrast, contrasts


@dataclass(frozen=True, kw_only=True)
class StepUp:
    """A step from one student of the frontier to the next larger one.

    Args:
        smaller, larger: numbers of their arms.
        contrast: accuracy of the larger minus the smaller one's, on the test split; its interval and p-value hold for
            all steps at once.
    """

    smaller: int
    larger: int
    contrast: Contrast


def steps_up(
    frontier: Sequence[int], index: Mapping[int, int], samples: Sequence[Sequence[float]], resolution: float
) -> tuple[StepUp, ...]:
    """Compare each student of a frontier with the next larger one; those that cannot be compared are passed over.

    Args:
        frontier: numbers of arms, the smallest student first.
        index: of each arm's sample in `samples`, by its number.
        resolution: as for `contrasts`.
    """
    pairs = list(pairwise(number for number in frontier if number in index))
    found = contrasts(samples, [(index[larger], index[smaller]) for smaller, larger in pairs], resolution=resolution)
    return tuple(
        StepUp(smaller=smaller, larger=larger, contrast=contrast)
        for (smaller, larger), contrast in zip(pairs, found, strict=True)
    )
