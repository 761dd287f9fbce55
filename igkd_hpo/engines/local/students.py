"""Try a training step of the networks that others wrote, each in a forked process, which such a network may end."""

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.guarded import Failed, try_layouts
from igkd_hpo.engines.local.teacher import is_foreign, try_teacher
from igkd_hpo.errors import IgkdError, StudyFileError, UsageError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    import torch

    from igkd_hpo.assets.dataset import Dataset
    from igkd_hpo.trial.step import Step


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What was found of an architecture: its steps, or why it cannot be a student; `known` from an earlier time."""

    architecture: str
    found: "Step | IgkdError"
    known: bool


def refuse_untrainable(study: Study, settings: Settings, *, device: str, progress: Progress) -> None:
    """Make the images, and try each student and the teacher that were not yet; what was found is kept.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        StudyFileError: an architecture cannot be a student of this study; all are named.
        TeacherError: the teacher cannot be trained.
        UsageError, DataError: the device or the images cannot be used.
        AssetError: an asset is damaged, or cannot be written.
        IgkdError: memory runs out, or no process can be started.
    """
    if not foreign(study) and not is_foreign(study):
        return

    from igkd_hpo.assets.shown import prepare_images
    from igkd_hpo.assets.store import AssetStore
    from igkd_hpo.distillation.device import choose_device

    chosen = choose_device(device)
    dataset = prepare_images(study, settings, AssetStore(settings.paths.assets), progress)
    with closing(ForkServer()) as server:  # which is started when it is first asked
        # The teacher first: with its features students are then tried.
        layout = try_teacher(study, dataset.shown, settings, chosen, progress, server)
        every = try_students(study, dataset, settings, chosen, progress, server)
    if layout is not None and layout.why is not None:
        progress.note(f"the teacher {layout.why} in channels_last; it is trained contiguously")
    wrong = []
    for tried in every:
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
    study: Study,
    dataset: "Dataset",
    settings: Settings,
    device: "torch.device",
    progress: Progress,
    server: ForkServer,
) -> list[Tried]:
    """Return what is known of each architecture that others wrote; it is found out where it is not.

    Raises:
        AssetError: what was found is damaged, or cannot be kept.
        IgkdError: no process can be started.
    """
    from igkd_hpo.trial.step import Step, StepTask, describe_failure, keep_step, known_step

    known = {name: known_step(study, name, dataset, settings, device) for name in foreign(study)}
    found: dict[str, Step | IgkdError] = {name: step for name, step in known.items() if step is not None}
    unknown = [name for name in known if name not in found]
    if unknown:
        several = f"{len(unknown)} students" if len(unknown) > 1 else unknown[0]
        with progress.task(f"trying a training step of {several}", len(unknown)) as go:
            for name in unknown:
                task = StepTask(study=study, settings=settings, device=str(device), architecture=name)
                step = try_layouts(server, task)
                if isinstance(step, Step):
                    keep_step(step, study, name, dataset, settings, device)
                elif isinstance(step, Failed):
                    step = describe_failure(task, step.what, dataset)
                assert isinstance(step, Step | IgkdError), "of a student"
                found[name] = step
                go(1)
    return [Tried(architecture=name, found=found[name], known=name not in unknown) for name in known]
