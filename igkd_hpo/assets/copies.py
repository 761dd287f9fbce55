"""Copies of an image, pixel for pixel as the networks see it, that lie in two splits or in two classes."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.image_folder import name_some
from igkd_hpo.sources import Remark


class Copies(NamedTuple):
    """Copies of images that were found.

    Args:
        about: `duplicates` of two splits, or `labels` of two classes.
        found: how many, in words.
        advice: what to do.
        share: of the images that have a copy, a fraction: of a split's at worst, or of all.
    """

    about: str
    found: str
    advice: str
    share: float

    @property
    def remark(self) -> Remark:
        """Return it as a source says things of its images."""
        return Remark(self.about, self.found, self.advice)


def digest_images(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> list[bytes]:
    """Hash the pixels of some of the images (N, 3, H, W) to 16 bytes each (BLAKE2b)."""
    return [hashlib.blake2b(images[row].tobytes(), digest_size=16).digest() for row in rows.tolist()]


def find_leaks(
    splits: Mapping[str, Sequence[bytes]], files: Mapping[str, Sequence[str]] | None = None
) -> Copies | None:
    """Find images that are in two splits.

    Args:
        splits: their digests, by the name of the split.
        files: their names, likewise; None where they have none.
    """
    findings, worst = [], 0.0
    for one, other in combinations(splits, 2):
        first = {digest: row for row, digest in reversed(list(enumerate(splits[one])))}
        copies = [row for row, digest in enumerate(splits[other]) if digest in first]
        if copies:
            pairs = (
                None
                if files is None
                else [(files[one][first[splits[other][row]]], files[other][row]) for row in copies]
            )
            findings.append(
                f"{len(copies)} of {len(splits[other])} {other} images are also in {one}{_in_brackets(pairs)}"
            )
            worst = max(worst, len(copies) / len(splits[other]))
    if not findings:
        return None
    return Copies("duplicates", "; ".join(findings), "remove the copies: they make accuracies look better", share=worst)


def find_torn(
    digests: Sequence[bytes], labels: Sequence[int], class_names: Sequence[str], files: Sequence[str] | None = None
) -> Copies | None:
    """Find images that are in two classes."""
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        rows_of[digest].append(row)
    torn = [rows for rows in rows_of.values() if len({labels[row] for row in rows}) > 1]
    if not torn:
        return None
    pairs = [(rows[0], next(row for row in rows if labels[row] != labels[rows[0]])) for rows in torn]
    first, second = sorted(labels[row] for row in pairs[0])
    such_as = f"such as {class_names[first]!r} and {class_names[second]!r}"
    named = _in_brackets(None if files is None else [(files[one], files[other]) for one, other in pairs])
    count = sum(map(len, torn))
    return Copies(
        "labels",
        f"{count} images have a copy in another class, {such_as}{named}",
        "keep each in the right class only",
        share=count / len(digests),
    )


def _in_brackets(pairs: Sequence[tuple[str, str]] | None) -> str:
    return f" ({name_some([f'{one} and {other}' for one, other in pairs])})" if pairs else ""
