"""Try a training step of every student that others wrote, each in a forked process, which such a network may end."""

import os
import resource
import signal
import sys
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import IgkdError, StudyFileError, UsageError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    import torch

    from igkd_hpo.assets.dataset import Dataset
    from igkd_hpo.trial.step import Step, StepTask

_PATIENCE_SECONDS = 600.0  # of a network that waits for what never comes; three steps of few images take seconds
_LOOK_SECONDS = 1.0  # how often to see that the server still runs
_LAYOUTS: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")  # the faster one first


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What was found of an architecture: its steps, or why it cannot be a student; `known` from an earlier time."""

    architecture: str
    found: "Step | IgkdError"
    known: bool


@dataclass(frozen=True)
class _Failed:
    """What happened, in words, in one layout of memory."""

    what: str


def refuse_untrainable(study: Study, settings: Settings, *, device: str, progress: Progress) -> None:
    """Make the images, and try each architecture that was not yet; what was found is kept for the trials.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        StudyFileError: an architecture cannot be a student of this study; all are named.
        UsageError, DataError: the device or the images cannot be used.
        AssetError: an asset is damaged, or cannot be written.
        IgkdError: memory runs out, or no process can be started.
    """
    if not foreign(study):
        return

    from igkd_hpo.assets.dataset import prepare_dataset
    from igkd_hpo.assets.store import AssetStore
    from igkd_hpo.distillation.device import choose_device

    chosen = choose_device(device)
    dataset = prepare_dataset(study.dataset, settings, AssetStore(settings.paths.assets), progress)
    wrong = []
    for tried in try_students(study, dataset, settings, chosen, progress):
        if isinstance(tried.found, IgkdError):
            if not isinstance(tried.found, UsageError):
                raise tried.found
            wrong.append(f"{study.name}: {tried.found}")
        elif not tried.known:
            if tried.found.why is not None:
                progress.note(f"{tried.architecture} {tried.found.why} in channels_last; it is trained contiguously")
            for remark in remarks(tried.architecture, tried.found, dataset.image_size):
                progress.warn(remark)
    if wrong:
        raise StudyFileError(*wrong)


def remarks(architecture: str, step: "Step", image_size: tuple[int, int]) -> Collection[str]:
    """Return what people should know of an architecture that can be trained, each with advice after its semicolon."""
    told = []
    if step.smallest_side is not None and step.smallest_side < 2:
        height, width = image_size
        told.append(
            f"{architecture} reduces images of {height}x{width} to maps of one pixel; "
            "raise dataset.image_size, or take a network of less stride"
        )
    return told


def foreign(study: Study) -> list[str]:
    """Return the architectures of a study's students that others wrote."""
    return [name for name in study.hyperparameters.words("architecture") if find_architecture(name).foreign]


def try_students(
    study: Study, dataset: "Dataset", settings: Settings, device: "torch.device", progress: Progress
) -> list[Tried]:
    """Return what is known of each architecture that others wrote; it is found out where it is not.

    Raises:
        AssetError: what was found is damaged, or cannot be kept.
        IgkdError: no process can be started.
    """
    from igkd_hpo.trial.step import StepTask, keep_step, known_step

    known = {name: known_step(study, name, dataset, settings, device) for name in foreign(study)}
    found: dict[str, Step | IgkdError] = {name: step for name, step in known.items() if step is not None}
    unknown = [name for name in known if name not in found]
    if unknown:
        several = f"{len(unknown)} students" if len(unknown) > 1 else unknown[0]
        with closing(ForkServer()) as server, progress.task(f"trying a training step of {several}", len(unknown)) as go:
            for name in unknown:
                task = StepTask(study=study, settings=settings, device=str(device), architecture=name)
                step = found[name] = _try_layouts(server, task, dataset)
                if not isinstance(step, IgkdError):
                    keep_step(step, study, name, dataset, settings, device)
                go(1)
    return [Tried(architecture=name, found=found[name], known=name not in unknown) for name in known]


def _try_layouts(server: ForkServer, task: "StepTask", dataset: "Dataset") -> "Step | IgkdError":
    from igkd_hpo.trial.step import describe_failure

    why = None
    for layout in _LAYOUTS:
        answer = _run(server, replace(task, memory_format=layout))
        if not isinstance(answer, _Failed):
            return answer if isinstance(answer, IgkdError) else replace(answer, why=why)
        why = answer.what
    return describe_failure(task, str(why), dataset)


def _run(server: ForkServer, task: "StepTask") -> "Step | IgkdError | _Failed":
    """Return what a process says of a task, or how it ended."""
    child = Child(server, run_steps, task)
    answer: Step | IgkdError | _Failed | None = None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        while not child.ended:
            if time.monotonic() > deadline:
                return _Failed(f"does not come to an end within {_PATIENCE_SECONDS:g} s")
            wait(child.waitables(), _LOOK_SECONDS)
            for message in child.messages():
                answer = message
        if child.killed_for_memory:
            return IgkdError(f"memory ran out in a training step of {task.architecture}; free some, or leave it out")
        if answer is not None and child.exit_code == 0:
            return answer
        code = child.exit_code
        if code is None:
            return _Failed("ends the server that its process is forked from")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return _Failed(f"ends its process {how}")
    finally:
        child.close()


def run_steps(task: "StepTask", pipe: Connection) -> None:
    """Take the steps in this process, and send what was found, or why it was not."""
    from igkd_hpo.trial.step import StepFailed, take_steps

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is what is looked for
    with open(os.devnull, "w") as nowhere:  # the C library's words on it too
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    try:
        pipe.send(take_steps(task))
    except IgkdError as error:
        pipe.send(error)
    except StepFailed as error:
        pipe.send(_Failed(str(error)))
