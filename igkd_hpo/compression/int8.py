"""Keep and read what int8 costs the students of a ladder, measured on validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from igkd_hpo.search.study import SearchStudy


@dataclass(frozen=True, kw_only=True)
class Int8Change:
    """A student's value of the study's metric on the validation images, in PyTorch and in int8; fractions."""

    float32: float
    int8: float


def read_int8(linked: SearchStudy) -> dict[int, Int8Change]:
    """Return what was measured, by trial number."""
    kept: dict[str, Any] = linked.read().attributes.get("int8", {})
    return {int(number): Int8Change(**values) for number, values in kept.items()}


def keep_int8(linked: SearchStudy, measured: Mapping[int, Int8Change]) -> None:
    """Add measurements to those of a ladder's study; one that it has already stays as it is."""
    with linked.transaction():
        joined = {**measured, **read_int8(linked)}
        kept = {str(number): asdict(joined[number]) for number in sorted(joined)}
        linked.storage.set_study_user_attr(linked.study_id, "int8", kept)


def changes(measured: Mapping[int, Int8Change], trials: Sequence[int]) -> list[float]:
    """Return int8 minus float of those of the trials that were measured, in their order."""
    return [one.int8 - one.float32 for number in trials if (one := measured.get(number)) is not None]
