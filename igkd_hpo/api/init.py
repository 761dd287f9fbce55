"""Write a first study file for a folder of images: look at them and at the machine, choose, and say why."""

import json
import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeGuard

from igkd_hpo.api.source import known_study, looks_like_path, settings_here
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.cost import parse_limits
from igkd_hpo.config.reading import read_study, study_from_json
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.device import check_device_name
from igkd_hpo.errors import DataError, UsageError
from igkd_hpo.files import check_output, user_path, write_output
from igkd_hpo.names import LONGEST_NAME, accept_name, plain_name
from igkd_hpo.settings import Settings
from igkd_hpo.starting.balance import choose_balance
from igkd_hpo.starting.choice import Choice, batch_size, choose_study
from igkd_hpo.starting.images import ImageFacts, look_at_images
from igkd_hpo.starting.measuring import Measuring, SurveyTask, TimingTask, with_times
from igkd_hpo.starting.networks import BUILT_IN, FROM_LIBRARIES, Machine, Network, Survey, given_teachers, students_of
from igkd_hpo.starting.size import Sizing, sizes_to_try
from igkd_hpo.starting.students import fitting_students
from igkd_hpo.starting.teacher import TeacherPlan, Wanted, candidates, choose_teacher
from igkd_hpo.starting.text import write_choice
from igkd_hpo.terminal.progress import make_progress
from igkd_hpo.words import rough_duration


@dataclass(frozen=True, kw_only=True)
class FirstStudy:
    """A study that was chosen for a folder of images.

    Args:
        study_file: its content.
        text: the file, with comments.
        about: what was chosen, a line each.
    """

    study_file: Study
    text: str
    about: tuple[str, ...]


def init(
    folder: str | PathLike[str],
    *,
    under: Iterable[str] = (),
    teacher: str | None = None,
    weights: str | None = None,
    follow_links: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> FirstStudy:
    """Choose a study for a folder of images, or a list of them; nothing is written.

    Args:
        folder: as `dataset.root` in a study file.
        under: limits of the device, `KEY=VALUE` each, such as `parameters=500k`.
        teacher: the network to begin the teacher with; else one whose weights can be had, or one trained here.
        weights: a file of its weights; else published ones.
        follow_links: read also what links lead to that is not in the folder.
        device: auto, cpu, cuda or cuda:N: where it will run.
        progress: show on standard error how far it is.

    Raises:
        DataError: the images cannot be used.
        UsageError: what was asked for cannot be had, or no student keeps the limits; the nearest is named.
        IgkdError: nothing can be measured here.
    """
    check_device_name(device)
    limits, wanted = parse_limits(under), _wanted(teacher, weights)
    settings = settings_here()
    path, root = _place(folder, settings)
    if not path.exists():
        raise DataError(
            f"there is no folder or list {root}; name the folder that holds train/<class>/*, or a list in CSV"
        )
    if wanted is not None and wanted.weights is not None:
        file, name = _place(wanted.weights, settings)
        if not file.is_file():
            raise UsageError(f"--weights {wanted.weights} is no file; name one of weights of {wanted.architecture}")
        wanted = Wanted(architecture=wanted.architecture, weights=name)
    with make_progress(progress) as shown:
        shown.note(f"looking at {accept_name(str(path))}")
        images = look_at_images(path, root, follow_links=follow_links)
        with closing(Measuring()) as measuring:
            machine = measuring.machine(device)
            if wanted is not None:
                measuring.look_up(wanted.architecture)
            choice = _choose(study_name(path), images, machine, limits, wanted, measuring, device, shown)
    total = rough_duration(choice.budget.total)
    busy = f"this machine is busy ({machine.load:.1f} processes for each core)"
    warning = (
        () if choice.budget.fits else ("more than two hours: fewer images, a GPU, or a lower n_trials shorten it",)
    )
    damaged = (f"{images.not_read}; doctor looks at all, and names them",) if images.not_read else ()
    return FirstStudy(
        study_file=choice.study,
        text=write_choice(choice, images, machine),
        about=(
            *damaged,
            f"students: {choice.students}",
            f"teacher: {choice.teacher}",
            f"about {total} on {machine.shown}, as measured just now, one trial at a time",
            *((f"{busy}: idle it trains faster, and init chooses more for the same time",) if machine.is_busy else ()),
            *warning,
        ),
    )


def _choose(
    name: str,
    images: ImageFacts,
    machine: Machine,
    limits: Limits,
    wanted: Wanted | None,
    measuring: Measuring,
    device: str,
    progress: Progress,
) -> Choice:
    """Choose at the best size for which there is time; at the smallest one where there is for none."""
    balance = choose_balance(images)
    batch = batch_size(balance.n_train, machine)
    places = None
    for sizing in (sizings := sizes_to_try(images, machine)):
        probe = _probe(sizing, batch, limits)
        students = students_of(sizing.side)
        names: tuple[str, ...] = ()
        if places is None:
            progress.note(f"looking at networks for images of {sizing.side} pixels, and for their weights")
            asked = [wanted.architecture] if wanted is not None and wanted.weights is None else []
            if sizing.side >= FROM_LIBRARIES:
                asked += [*given_teachers(machine), *(one.architecture for one in students)]
            names = tuple(dict.fromkeys(asked))
        survey = measuring.survey(_task(probe, images, students, names))
        places = dict(survey.weights) if places is None else places
        if wanted is not None and wanted.weights is None and wanted.architecture not in places:
            raise UsageError(
                f"published weights of {wanted.architecture} cannot be had here; name a file with --weights"
            )
        plans = candidates(images, machine, sizing, places, wanted)
        of_teachers = measuring.survey(_task(probe, images, [plan.network for plan in plans], ()))
        survey = Survey(costs={**survey.costs, **of_teachers.costs}, weights=places)
        plans = [plan for plan in plans if plan.network in survey.costs]
        if not plans:
            raise UsageError(
                f"{wanted.architecture if wanted else BUILT_IN} cannot be built here; name another --teacher"
            )
        below = survey.costs[plans[0].network].parameters
        fitting = fitting_students(students, survey, limits, below=below)
        timed = [_to_time(plans), *(fitting[:1] if fitting[0].architecture == BUILT_IN else fitting)]
        tasks = [
            TimingTask(
                study=probe,
                num_classes=len(images.class_names),
                network=network,
                macs=survey.costs[network].macs,
                device=device,
            )
            for network in dict.fromkeys(timed)
        ]
        survey = with_times(survey, measuring.time(tasks, progress))
        choice = choose_study(
            name=name,
            images=images,
            machine=machine,
            limits=limits,
            sizing=sizing,
            balance=balance,
            survey=survey,
            teacher=choose_teacher(plans, survey, balance.n_train),
            students=fitting,
        )
        if choice.budget.fits:
            break
        if sizing is not sizings[-1]:
            progress.note(f"images of {sizing.side} pixels would take about {rough_duration(choice.budget.total)}")
    return choice


def _task(probe: Study, images: ImageFacts, networks: Iterable[Network], weights: tuple[str, ...]) -> SurveyTask:
    return SurveyTask(
        study=probe, num_classes=len(images.class_names), networks=tuple(networks), wanted_weights=weights
    )


def _to_time(plans: list[TeacherPlan]) -> Network:
    """Return the teacher to time: others are in proportion to it; the largest built-in ones take longest."""
    return plans[0].network if plans[0].weights is not None else plans[min(1, len(plans) - 1)].network


def _probe(sizing: Sizing, batch: int, limits: Limits) -> Study:
    """Return a study that trains as the chosen one will, to measure with."""
    augmentation = {"views": sizing.views} if sizing.views else {"crop_padding": sizing.padding}
    fixed = {
        "temperature": 4.0,
        "alpha": 0.5,
        "overlay_probability": 0.25,
        "overlay_strength": 0.5,
        "learning_rate": 0.1,
    }
    document = {
        "name": "probe",
        "dataset": {"name": "digits"},
        "augmentation": {**augmentation, "horizontal_flip": sizing.flip},
        "hyperparameters": {**fixed, "batch_size": batch},
        "controls": [],
    }
    probe = study_from_json(json.dumps(document), source="the probe")
    return probe.model_copy(update={"limits": limits})


def _wanted(teacher: str | None, weights: str | None) -> Wanted | None:
    if teacher is None:
        if weights is not None:
            raise UsageError(f"--weights {weights} is of a network that is not named; add --teacher NAME")
        return None
    try:
        published = find_architecture(teacher).published
    except ValueError as error:
        raise UsageError(f"--teacher {error}") from None
    if published is None:
        raise UsageError(
            f"--teacher {teacher} has no published weights to begin with; name a network of timm or torchvision"
        )
    return Wanted(architecture=teacher, weights=weights)


def _place(given: str | PathLike[str], settings: Settings) -> tuple[Path, str]:
    """Return a path that a person typed, and its name in a study file, which starts at IGKD_HPO_DATA where that is set.

    Raises UsageError where the name is no text.
    """
    written = os.fspath(given)
    written = written.rstrip("/") or written
    path = settings.data_path(written)
    if not path.exists() and (here := Path.cwd() / user_path(written)).exists():
        path, written = here, str(here)
    try:
        written.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{accept_name(written)} is not UTF-8, as study files are; rename it") from None
    return path, written


def study_name(path: Path) -> str:
    """Return a valid name for a study of these images, from the folder's or the list's: `my photos` is `my-photos`."""
    resolved = path.resolve()
    name = resolved.stem if path.is_file() else resolved.name
    valid = plain_name(name) or "images"
    return f"{valid[: LONGEST_NAME - 7]}-images" if valid in builtin_studies() else valid


def refuse_existing(path: Path) -> None:
    """Raise UsageError where a study file is not to be written: in place of another, or of a folder."""
    check_output(path, example="study.yaml")
    if path.is_file():
        raise UsageError(f"{path} is there already; launch it as it is, remove it, or give another place with -o")


def write_new(path: Path, text: str) -> None:
    """Write a study file where none is. Raises UsageError where there is one, or it cannot be written."""
    refuse_existing(path)
    write_output(path, text.encode())


def names_images(study: object) -> TypeGuard[str]:
    """Return whether what `launch` is given is a folder, or a list in CSV, and no name of a built-in study."""
    if not isinstance(study, str) or study in builtin_studies():
        return False
    path = settings_here().data_path(study)
    return any(one.is_dir() or (one.suffix.lower() == ".csv" and one.is_file()) for one in (path, user_path(study)))


def default_file(folder: str | PathLike[str], settings: Settings) -> Path:
    """Return the place of a folder's study file where no other is given: in the current directory."""
    return _file_of(_place(folder, settings)[0])


def _file_of(images: Path) -> Path:
    return Path(f"{study_name(images)}.yaml")


def study_file_of(folder: str, settings: Settings) -> tuple[Path, Study | None]:
    """Return the file of a folder's study in the current directory, and the study to go on with; None for a new one.

    That is what is in the file; where there is no such file, an existing study of the folder's name.

    Raises:
        UsageError: a file of that name is there, and is of other images, or of another study than the existing one.
        StudyFileError: it has faults.
    """
    path, _ = _place(folder, settings)
    file = _file_of(path)
    existing = None if looks_like_path(folder) else known_study(folder, settings)
    if not file.exists():
        return file, existing
    study = read_study(file)
    if existing is not None and study.name != folder:
        raise UsageError(
            f"{file} is of study {study.name}, and there is a study {folder} too; launch ./{file} for the one, or "
            f"rename that file and launch {folder} for the other"
        )
    of = study.dataset.root or study.dataset.name
    if os.path.realpath(settings.data_path(of)) != os.path.realpath(path):
        raise UsageError(
            f"{file} is there already, and is of other images ({of}); launch ./{file} if that is meant, or write "
            f"another with `igkd-hpo init {folder} -o FILE`"
        )
    return file, study
