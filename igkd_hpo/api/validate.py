"""Check a study file, and name every fault in it."""

from dataclasses import dataclass

from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.limits import check_limits_of_file
from igkd_hpo.doctor.study_file import check_checkpoints, check_study_file
from igkd_hpo.errors import StudyFileError


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A study file without faults.

    Args:
        study_file: its content, with all defaults.
        found: its search, in words.
        warnings: each setting that cannot have the effect that it seems to have, with advice.
    """

    study_file: Study
    found: str
    warnings: tuple[str, ...]


def validate(study: StudyLike = DEFAULT) -> Validation:
    """Check a study file alone: no image is read, and of a checkpoint only what kind of file it is.

    Args:
        study: as for `launch`.

    Raises:
        StudyFileError: all faults at once, each with its path in the file; or what it names cannot be a checkpoint.
        UsageError: there is no study of that name.
    """
    study_file = study_to_run(study, settings := settings_here())
    checks = [*check_study_file(study_file), *check_limits_of_file(study_file, settings)]
    first, *others = [*checks, *check_checkpoints(study_file, settings)]
    for check in others:
        if check.verdict is CheckVerdict.FAULT:
            raise StudyFileError(f"{study_file.name}: {check.found}; {check.advice}")
    warnings = tuple(f"{check.found}; {check.advice}" for check in others if check.verdict is not CheckVerdict.OK)
    return Validation(study_file=study_file, found=first.found, warnings=warnings)
