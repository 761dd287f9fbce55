"""Rungs of a ladder: factors that are asked for, and the student that each of them got."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from igkd_hpo.config.space import Value, shown
from igkd_hpo.errors import UsageError
from igkd_hpo.search.study import SearchStudy

PAPER_RUNGS = (2.2, 4.1, 7.3, 12.0, 29.0, 55.0, 139.0, 1122.0)
"""Compression factors of arXiv 2503.13008: a MobileNet-V2 without its last 3, 5, … 17 blocks."""
TOLERANCE = 0.15
"""How far a student's factor may be from the one that is asked for, as a share of it."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A compression factor: parameters of the teacher over those of the student.

    Args:
        asked: above 1.
        reached: by the student that was found; None where the rung is left out.
        parameters: of that student, in the form that is shipped.
        student: its architecture and the knobs that its network has; empty where the rung is left out.
        left_out: why, in words; None where it is not.
    """

    asked: float
    reached: float | None = None
    parameters: int | None = None
    student: Mapping[str, Value]
    left_out: str | None = None

    @property
    def title(self) -> str:
        """Name it by the factor that is asked for, as it was written: 4.1 times."""
        return f"{self.asked:,g} times"


def read_factors(text: str) -> tuple[float, ...]:
    """Read factors with commas between them: 4.1,12. Raises UsageError."""
    factors = []
    for part in text.split(","):
        try:
            factors.append(float(part))
        except ValueError:
            raise UsageError(f"--rungs: {part.strip()!r} is no number; give factors such as 4.1,12") from None
    return tuple(factors)


def check_factors(factors: Sequence[float]) -> tuple[float, ...]:
    """Return the factors in ascending order. Raises UsageError where there are none, or one is not above 1 or twice."""
    if not factors:
        raise UsageError("--rungs is empty; give factors such as 4.1,12")
    for factor in factors:
        if not (math.isfinite(factor) and factor > 1):
            raise UsageError(
                f"--rungs: {factor:g} is not above 1; a rung says how many times smaller than the teacher, such as 4.1"
            )
    if twice := sorted({factor for factor in factors if list(factors).count(factor) > 1}):
        raise UsageError(f"--rungs: {twice[0]:g} is there twice; give each factor once")
    return tuple(sorted(map(float, factors)))


def is_near(reached: float, asked: float) -> bool:
    """Return whether a factor is within TOLERANCE of the one that is asked for."""
    return abs(reached / asked - 1) <= TOLERANCE


def student_in_words(student: Mapping[str, Value]) -> str:
    """Name a student by its architecture and knobs: mobilenet_v2, layers_removed 9, width 0.5."""
    knobs = [f"{name} {shown(value)}" for name, value in student.items() if name != "architecture"]
    return ", ".join([str(student["architecture"]), *knobs])


def rungs_of(linked: SearchStudy) -> tuple[Rung, ...]:
    """Return the rungs that a ladder's study has so far, by the factors that were asked for."""
    return tuple(Rung(**one) for one in linked.read().attributes.get("rungs", []))


def keep_rungs(linked: SearchStudy, rungs: Sequence[Rung]) -> None:
    """Add rungs to those of a ladder's study; one that it has already stays as it is."""
    with linked.transaction():
        joined = {rung.asked: rung for rung in (*rungs, *rungs_of(linked))}
        kept = [asdict(joined[factor]) for factor in sorted(joined)]
        linked.storage.set_study_user_attr(linked.study_id, "rungs", kept)
