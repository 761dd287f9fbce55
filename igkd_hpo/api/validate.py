"""Check a study file, and name every fault in it."""

from dataclasses import dataclass

from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, CheckVerdict
from igkd_hpo.doctor.limits import check_limits_of_file
from igkd_hpo.doctor.networks import check_names, looked_up
from igkd_hpo.doctor.study_file import check_root, check_study_file, check_weights
from igkd_hpo.errors import StudyFileError
from igkd_hpo.terminal.progress import make_progress


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


def validate(study: StudyLike = DEFAULT, *, progress: bool = True) -> Validation:
    """Check a study file alone: images are only looked for, and of weights only what kind of file they are.

    Networks of torchvision and timm are looked up there, which takes the seconds of their import.

    Args:
        study, progress: as for `launch`.

    Raises:
        StudyFileError: all faults at once, each with its path in the file; or a network that it names is not known, or
            what it names cannot be a file of weights.
        UsageError: there is no study of that name.
    """
    study_file = study_to_run(study, settings := settings_here())
    first, *others = check_study_file(study_file)
    others += [*check_root(study_file, settings), *check_weights(study_file, settings)]
    if named := looked_up(study_file):
        with make_progress(progress) as shown:
            shown.note(f"looking up {', '.join(named)}")
        others += check_names(study_file)
    _refuse(study_file, others)
    limits = check_limits_of_file(study_file, settings)  # builds students
    _refuse(study_file, limits)
    others += limits
    warnings = tuple(f"{check.found}; {check.advice}" for check in others if check.verdict is not CheckVerdict.OK)
    return Validation(study_file=study_file, found=first.found, warnings=warnings)


def _refuse(study: Study, checks: list[Check]) -> None:
    """Raise StudyFileError where there are faults, a line for each."""
    faults = [check for check in checks if check.verdict is CheckVerdict.FAULT]
    if faults:
        raise StudyFileError(*(f"{study.name}: {check.found}; {check.advice}" for check in faults))
