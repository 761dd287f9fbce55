"""What one check of the surroundings found."""

from dataclasses import dataclass
from enum import StrEnum

from igkd_hpo.errors import IgkdError, StudyFileError


class CheckVerdict(StrEnum):
    """How bad it is. Only a fault is worth an exit code."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's table.

    Args:
        group: study, data, teacher, assets, storage or devices.
        name: of the check, unique in its group.
        found: what was found, with its numbers.
        advice: what to do about it; empty where nothing is to be done.
    """

    group: str
    name: str
    verdict: CheckVerdict
    found: str
    advice: str = ""


def ok(group: str, name: str, found: str) -> Check:
    """Nothing to be done."""
    return Check(group=group, name=name, verdict=CheckVerdict.OK, found=found)


def warning(group: str, name: str, found: str, advice: str) -> Check:
    """A study would run, and likely not as it was meant."""
    return Check(group=group, name=name, verdict=CheckVerdict.WARNING, found=found, advice=advice)


def fault(group: str, name: str, found: str, advice: str) -> Check:
    """A study would fail, or its results would be wrong."""
    return Check(group=group, name=name, verdict=CheckVerdict.FAULT, found=found, advice=advice)


def failed(group: str, name: str, error: IgkdError) -> Check:
    """A fault that the product itself names. Its messages end with the remedy, after a semicolon.

    Those about a study file have a remedy for each of its faults, beside it.
    """
    if isinstance(error, StudyFileError):
        return fault(group, name, str(error), "")
    found, _, advice = " ".join(str(error).split()).rpartition("; ")
    return fault(group, name, found, advice) if found else fault(group, name, advice, "")


def not_checked(group: str, name: str, because: str) -> Check:
    """A check that an earlier fault, which has its own line, leaves nothing to look at."""
    return Check(group=group, name=name, verdict=CheckVerdict.WARNING, found=f"not checked: {because}")
