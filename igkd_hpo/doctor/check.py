"""One line of the doctor's table, and the ways to make one."""

from dataclasses import dataclass
from enum import StrEnum

from igkd_hpo.errors import IgkdError, StudyFileError
from igkd_hpo.escaping import one_line


class CheckVerdict(StrEnum):
    """How bad the outcome of a check is. Only a fault is worth an exit code."""

    OK = "ok"
    NOT_CHECKED = "not checked"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's table.

    Args:
        group: study, limits, data, teacher, students, assets, storage or devices.
        name: unique in its group.
        found: the outcome, with its numbers; one line, but for a study file with several faults.
        advice: what to do about it; empty where nothing is to be done.
    """

    group: str
    name: str
    verdict: CheckVerdict
    found: str
    advice: str = ""


def ok(group: str, name: str, found: str) -> Check:
    """Return a check after which nothing is to be done."""
    return Check(group=group, name=name, verdict=CheckVerdict.OK, found=one_line(found))


def warning(group: str, name: str, found: str, advice: str) -> Check:
    """Return a check of a study that would run, and likely not as it was meant."""
    return Check(group=group, name=name, verdict=CheckVerdict.WARNING, found=one_line(found), advice=one_line(advice))


def fault(group: str, name: str, found: str, advice: str) -> Check:
    """Return a check of a study that would fail, or whose results would be wrong."""
    return Check(group=group, name=name, verdict=CheckVerdict.FAULT, found=one_line(found), advice=one_line(advice))


def grade(group: str, name: str, found: str, advice: str, *, faulty: bool = False, doubtful: bool) -> Check:
    """Return a fault, a warning or, without advice, an ok: the worst that holds."""
    if faulty or doubtful:
        return (fault if faulty else warning)(group, name, found, advice)
    return ok(group, name, found)


def failed(group: str, name: str, error: IgkdError) -> Check:
    """Return a fault that an error names: what stands after its last semicolon is the advice.

    A study file's error has an advice for each of its faults, beside it, and stays whole.
    """
    if isinstance(error, StudyFileError):
        return Check(group=group, name=name, verdict=CheckVerdict.FAULT, found=str(error))
    message = " ".join(str(error).split())
    found, _, advice = message.rpartition("; ")
    return fault(group, name, found, advice) if found else fault(group, name, message, "")


def not_checked(group: str, name: str, because: str) -> Check:
    """Return a check that an earlier fault, which has its own line, leaves nothing to look at."""
    return Check(group=group, name=name, verdict=CheckVerdict.NOT_CHECKED, found=because)
