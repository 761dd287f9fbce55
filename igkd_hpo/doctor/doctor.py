"""Every check that can be made before hours are spent: file, data, teacher, students, assets, storage and devices."""

from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.assets import check_assets
from igkd_hpo.doctor.check import Check, CheckVerdict, failed, not_checked
from igkd_hpo.doctor.data import check_data
from igkd_hpo.doctor.devices import check_devices
from igkd_hpo.doctor.limits import check_limits, check_limits_of_file
from igkd_hpo.doctor.networks import (
    check_students,
    check_students_licences,
    check_teachers_licence,
    check_teachers_step,
)
from igkd_hpo.doctor.storage import check_storage
from igkd_hpo.doctor.study_file import check_study_file
from igkd_hpo.doctor.teacher import check_teacher_network
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.step import contiguous_alone

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {CheckVerdict.OK: "green", CheckVerdict.WARNING: "yellow", CheckVerdict.FAULT: "bold red"}


def examine(
    study: Study | StudyFileError, settings: Settings, *, workers: int, device: str, progress: Progress
) -> list[Check]:
    """Make every check, in the order in which faults lead to others.

    The data set may be made for it; nothing else is, and no teacher is trained. The test split is opened to look for
    copies of its images in the other splits, which is logged.

    Args:
        study: or the error of its file; the surroundings are checked even so.
        workers: trials side by side on this host, 1 or more.
        device: as for `launch`.
    """
    if isinstance(study, StudyFileError):
        because = "the study file has faults"
        return [
            failed("study", "file", study),
            *(not_checked(group, "all", because) for group in ("data", "teacher", "assets")),
            *check_storage(None, None, settings.storage_url, workers=workers),
            *check_devices(None, None, settings, workers=workers, device=device)[1],
        ]
    dataset, data = check_data(study, settings, progress)
    with closing(ForkServer()) as server:  # which is started when it is first asked
        # The teacher first: with its features students are tried.
        step = check_teachers_step(study, dataset, settings, device, progress, server)
        students = check_students(study, dataset, settings, device, progress, server)
    if any(check.verdict is CheckVerdict.FAULT for check in students):
        because = "a student cannot be trained"
        return [
            *check_study_file(study),
            *data,
            *students,
            *check_students_licences(study),
            *(not_checked(group, "all", because) for group in ("teacher", "assets")),
            *check_storage(study, None, settings.storage_url, workers=workers),
            *check_devices(None, None, settings, workers=workers, device=device)[1],
        ]
    chosen, devices = check_devices(study, dataset, settings, workers=workers, device=device)
    pins, teacher_sha256 = None, None
    if dataset is None:
        limits = check_limits_of_file(study, settings)
        teacher = [not_checked("teacher", "all", "the images cannot be used")]
    else:
        contiguous = contiguous_alone(study, dataset, settings, chosen)
        limits = check_limits(study, dataset.num_classes, dataset.image_size, settings, contiguous=contiguous)
        teacher_sha256, teacher = check_teacher_network(study, dataset, settings, chosen, progress)
        teacher += step
        if teacher_sha256 is not None:
            pins = AssetPins(
                dataset_sha256=dataset.sha256,
                teacher_sha256=teacher_sha256,
                own_validation=dataset.own_validation,
                shown_sha256=dataset.shown_sha256,
            )
    return [
        *check_study_file(study),
        *limits,
        *data,
        *teacher,
        *check_teachers_licence(study),
        *students,
        *check_students_licences(study),
        *check_assets(study, dataset, teacher_sha256, settings, workers=workers),
        *check_storage(study, pins, settings.storage_url, workers=workers),
        *devices,
    ]


def checks_table(checks: list[Check]) -> "RenderableType":
    """Lay out checks for people: a row for each, with its advice below its outcome; one for all that a fault hides."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "found", box=None, pad_edge=False)
    made = [check for check in checks if check.verdict is not CheckVerdict.NOT_CHECKED]
    for group, of_group in groupby(made, key=lambda check: check.group):
        table.add_row("", Text(group, style="bold"), "")
        for check in of_group:
            outcome = Text(check.found)  # no markup: names of files and classes may well hold brackets
            if check.advice:
                outcome.append(f"\n→ {check.advice}", style="bold")
            table.add_row(Text(check.verdict.value, style=_STYLES[check.verdict]), Text(f"  {check.name}"), outcome)
    hidden: dict[str, dict[str, list[str]]] = {}  # by the reason, names by group
    for check in checks:
        if check.verdict is CheckVerdict.NOT_CHECKED:
            hidden.setdefault(check.found, {}).setdefault(check.group, []).append(check.name)
    for reason, groups in hidden.items():
        names = [group if names == ["all"] else f"{group} ({', '.join(names)})" for group, names in groups.items()]
        table.add_row(Text("not checked", style="yellow"), "", Text(f"{reason}: {', '.join(names)}"))
    return table
