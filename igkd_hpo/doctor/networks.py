"""The networks that others made: whether their library has them, whether they train, under which licence they are."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.doctor.check import Check, failed, grade, not_checked, ok, warning
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.students import foreign, remarks, try_students
from igkd_hpo.engines.local.teacher import is_foreign, try_teacher
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.assets.dataset import Dataset

_GROUP = "students"
# cc-by-nc-4.0, fair-noncommercial-research-license, and those whose text says so, and not their name.
_NOT_FOR_COMMERCE = re.compile(r"\bnc\b|non-?commercial|research|\bamlr\b|\bseer\b", re.IGNORECASE)


def looked_up(study: Study) -> dict[str, str]:
    """Return the keys of the study file that name networks of a library, each with the name."""
    key = "student.architecture" if study.student.architecture else "hyperparameters.architecture"
    named = {study.teacher.architecture: "teacher.architecture"}
    named |= dict.fromkeys(study.hyperparameters.words("architecture"), key)
    return {name: key for name, key in named.items() if find_architecture(name).look_up is not None}


def check_names(study: Study) -> list[Check]:
    """Check whether the libraries have the networks that a study names; imports them, and torch, if there are any."""
    checks = []
    for name, key in looked_up(study).items():
        look_up = find_architecture(name).look_up
        assert look_up is not None, "it was selected by that"
        try:
            look_up(_request(name))
            checks.append(ok("study", key, f"{name} is a network of its library"))
        except UsageError as error:
            checks.append(failed("study", key, UsageError(f"{key}: {error}")))
    return checks


def check_students(
    study: Study,
    dataset: "Dataset | None",
    settings: Settings,
    device: str,
    progress: Progress,
    server: ForkServer,
) -> list[Check]:
    """Check whether each architecture takes training steps, in a process of its own; nothing of the built-in ones."""
    if not foreign(study):
        return []
    if dataset is None:
        return [not_checked(_GROUP, "all", "the images cannot be used")]

    from igkd_hpo.distillation.device import choose_device

    checks = []
    try:
        every = try_students(study, dataset, settings, choose_device(device), progress, server)
    except IgkdError as error:
        return [failed(_GROUP, "all", error)]
    for tried in every:
        if isinstance(tried.found, IgkdError):
            checks.append(failed(_GROUP, tried.architecture, tried.found))
            continue
        step = tried.found
        found = f"one step in {step.seconds:.2g} s, {step.memory_format}"
        if step.why is not None:
            found += f", since in channels_last it {step.why}"
        if remarked := remarks(tried.architecture, step, dataset.image_size):
            what, _, advice = "; ".join(remarked).rpartition("; ")
            checks.append(warning(_GROUP, tried.architecture, f"{found}; {what}", advice))
        else:
            checks.append(ok(_GROUP, tried.architecture, found))
    return checks


def check_teachers_step(
    study: Study,
    dataset: "Dataset | None",
    settings: Settings,
    device: str,
    progress: Progress,
    server: ForkServer,
) -> list[Check]:
    """Check whether a teacher that others wrote takes training steps here; nothing where it is not to be trained."""
    if dataset is None or not is_foreign(study):
        return []

    from igkd_hpo.distillation.device import choose_device

    try:
        layout = try_teacher(study, dataset.shown, settings, choose_device(device), progress, server)
    except IgkdError as error:
        return [failed("teacher", "training step", error)]
    if layout is None:
        return []
    how = layout.memory_format if layout.why is None else f"contiguous, since in channels_last it {layout.why}"
    found = f"the teacher takes one; its memory format is {how}"
    return [ok("teacher", "training step", found)]


def check_teachers_licence(study: Study) -> list[Check]:
    """Check under which licence published weights are that the teacher has or begins with, as its library tells."""
    teacher = study.teacher
    begins = teacher.weights == "pretrained" or not (teacher.is_trained_here or teacher.checkpoints)
    return _licences("teacher", [teacher.architecture] if begins else [])


def check_students_licences(study: Study) -> list[Check]:
    """Check under which licences the published weights are that students begin with, as their libraries tell."""
    if "pretrained" not in study.hyperparameters.words("init"):
        return []
    names = study.hyperparameters.words("architecture")
    return _licences(_GROUP, [name for name in names if study.student.weights_of(name) is None])


def _licences(group: str, names: Iterable[str]) -> list[Check]:
    checks = []
    for name in names:
        find = find_architecture(name).origin
        if find is None:
            continue
        try:
            origin = find(_request(name))
        except UsageError:  # no such network, which is told elsewhere
            continue
        licence = origin and origin.licence
        found = f"of the weights of {name}: {licence or 'not told by its library'}"
        forbids = bool(licence and _NOT_FOR_COMMERCE.search(licence))
        advice = "take other weights for a product, or ask their owner"
        found += ", which forbids commercial use" if forbids else ""
        checks.append(grade(group, f"licence of {name}", found, advice, doubtful=forbids))
    return checks


def _request(name: str) -> Request:
    return Request(name=name, num_classes=2, image_size=(32, 32))
