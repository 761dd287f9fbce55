"""Check a study file, and name every fault in it."""

from dataclasses import dataclass

from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.limits import check_limits_of_file
from igkd_hpo.doctor.study_file import check_study_file
from igkd_hpo.errors import StudyFileError


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A study file without faults.

    Args:
        study_file: what it holds, with all defaults.
        found: what it searches, in words.
        warnings: what in it cannot have the effect that it seems to have, with what to do.
    """

    study_file: Study
    found: str
    warnings: tuple[str, ...]


def validate(study: StudyLike = DEFAULT) -> Validation:
    """Check a study file alone: no image is read.

    Args:
        study: as for `launch`.

    Raises:
        StudyFileError: all faults at once, each with its path in the file.
        UsageError: there is no study of that name.
    """
    checked = study_to_run(study, settings_here())
    file, *others = [*check_study_file(checked), *check_limits_of_file(checked)]
    for check in others:
        if check.verdict is CheckVerdict.FAULT:
            raise StudyFileError(f"{checked.name}: {check.found}; {check.advice}")
    warnings = tuple(f"{check.found}; {check.advice}" for check in others if check.verdict is not CheckVerdict.OK)
    return Validation(study_file=checked, found=file.found, warnings=warnings)
