"""Table of a network's classes, the worst first, as plain values: what becomes of each class's images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from igkd_hpo.distillation.tally import Tally

MOST_CLASSES = 40
"""Classes that a trial's record holds: of a thousand, the worst say what goes wrong, in a kilobyte or three."""


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Outcome of one class's images.

    Args:
        images: with this label; `right` of them were taken for it.
        answered: images that were taken for it, rightly or not.
        mistaken_for: the class that most of its other images were taken for; None where all are right.
    """

    name: str
    images: int
    right: int
    answered: int
    mistaken_for: str | None

    @property
    def recall(self) -> float:
        """Return the share of its images that are right."""
        return self.right / self.images

    @property
    def precision(self) -> float | None:
        """Return the share of the images taken for it that are right; None where none was."""
        return self.right / self.answered if self.answered else None


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The classes that occur in a split, or the worst of them.

    Args:
        count: of all classes that occur.
        worst: the lowest recall first, of equals the lowest precision, then their order.
        runs: networks whose answers are added up; each saw every image once.
        images: of all classes, over all runs; None in older records.
    """

    count: int
    worst: tuple[ClassResult, ...]
    runs: int = 1
    images: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, recall and precision included; fractions."""
        worst = [asdict(one) | {"recall": one.recall, "precision": one.precision} for one in self.worst]
        return {"count": self.count, "images": self.images, "runs": self.runs, "worst": worst}

    def as_record(self) -> dict[str, Any]:
        """Return what a database keeps of it; `table_of_record` reads it."""
        return asdict(self)


def table_of_record(record: dict[str, Any]) -> ClassTable:
    """Return the table that `as_record` wrote."""
    return ClassTable(**record | {"worst": tuple(ClassResult(**one) for one in record["worst"])})


def class_table(tally: Tally, names: Sequence[str], *, runs: int = 1, most: int | None = None) -> ClassTable:
    """Make the table of a tally, of its `most` worst classes, or of all.

    Args:
        names: of the classes, in the order of the labels.
    """
    results = [
        ClassResult(
            name=names[k],
            images=tally.images[k],
            right=tally.right[k],
            answered=tally.answered[k],
            mistaken_for=None if tally.mistaken_for[k] < 0 else names[tally.mistaken_for[k]],
        )
        for k in range(len(names))
        if tally.images[k]
    ]
    worst = sorted(results, key=lambda one: (one.recall, one.precision or 0.0))
    return ClassTable(count=len(results), worst=tuple(worst[:most]), runs=runs, images=sum(tally.images))
