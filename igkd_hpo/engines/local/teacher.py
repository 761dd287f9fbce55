"""Try training steps of a teacher that others wrote, in a forked process, which such a network may end."""

from contextlib import suppress
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.guarded import Failed, try_layouts
from igkd_hpo.errors import AssetMissing, IgkdError, TeacherError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    import torch

    from igkd_hpo.assets.dataset import Dataset
    from igkd_hpo.assets.layout import Layout


def is_foreign(study: Study) -> bool:
    """Return whether the teacher is trained here, and code of others."""
    return study.teacher.is_trained_here and find_architecture(study.teacher.architecture).foreign


def try_teacher(
    study: Study,
    dataset: "Dataset",
    settings: Settings,
    device: "torch.device",
    progress: Progress,
    server: ForkServer,
) -> "Layout | None":
    """Return the layout of memory in which the teacher can be trained; None where it need not be tried.

    What was found is kept: `prepare_teacher` trains it so, and one that is there already is left alone.

    Raises:
        TeacherError: it cannot be trained.
        IgkdError: it cannot be built, memory runs out, or no process can be started.
    """
    from igkd_hpo.assets.layout import Layout, keep_layout, known_layout
    from igkd_hpo.assets.store import AssetStore
    from igkd_hpo.assets.teachers import open_teacher_facts
    from igkd_hpo.trial.teacher_step import TeacherTask

    if not is_foreign(study):
        return None
    if (known := known_layout(study, dataset, settings, device)) is not None:
        return known
    with suppress(AssetMissing):
        open_teacher_facts(study, dataset, AssetStore(settings.paths.assets))
        return None
    task = TeacherTask(study=study, settings=settings, device=str(device))
    with progress.task(f"trying a training step of {task.called}", 1) as go:
        found = try_layouts(server, task)
        go(1)
    if isinstance(found, IgkdError):
        raise found
    if isinstance(found, Failed):
        height, width = dataset.image_size
        mend = "mend that code, or " if ":" in study.teacher.architecture else ""
        raise TeacherError(
            f"{task.called} {found.what} in a training step on images of {height}x{width}; "
            f"{mend}take another teacher, or write teacher.input_size"
        )
    assert isinstance(found, Layout), "of a teacher"
    keep_layout(found, study, dataset, settings, device)
    return found
