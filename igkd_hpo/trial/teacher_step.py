"""A few training steps of a teacher that others wrote, tried before it is trained for hours."""

import gc
from dataclasses import dataclass

from igkd_hpo.assets.layout import Layout
from igkd_hpo.assets.shown import open_images
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher_training import train_briefly
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.device import choose_device
from igkd_hpo.distillation.memory import exhausted_memory
from igkd_hpo.distillation.training import NonFiniteLoss
from igkd_hpo.errors import IgkdError, first_line
from igkd_hpo.settings import Settings
from igkd_hpo.trial.step import StepFailed


@dataclass(frozen=True, kw_only=True)
class TeacherTask:
    """A study's teacher, which is trained here, to be tried in a layout of memory.

    Args:
        device: cpu or cuda:N.
    """

    study: Study
    settings: Settings
    device: str
    memory_format: MemoryFormat = "channels_last"

    @property
    def called(self) -> str:
        """Return what people call it."""
        return f"the teacher {self.study.teacher.architecture}"


def take_teacher_steps(task: TeacherTask) -> Layout:
    """Build the teacher, with random weights, and train it on few images.

    Raises:
        IgkdError: it cannot be built, or memory ran out.
        StepFailed: it raised something else.
    """
    study, device, layout = task.study, choose_device(task.device), task.memory_format
    dataset = open_images(study, AssetStore(task.settings.paths.assets)).shown
    try:
        train_briefly(study, dataset, task.settings, device, memory_format=layout)
    except IgkdError:
        raise
    except NonFiniteLoss:
        pass  # of random weights; the training itself tells where it diverges
    except Exception as error:  # of people's and libraries' code: anything
        if (whose := exhausted_memory(error)) is not None:
            raise IgkdError(
                f"the memory of the {whose} is too small for a step of {task.called} with 2 images; "
                "free some, lower teacher.input_size, or take a smaller teacher"
            ) from error
        raise StepFailed(f"raises {type(error).__name__}: {first_line(error)}") from error
    gc.collect()  # memory that is not whole any more is noticed when it is given back
    return Layout(memory_format=layout)
