"""Code of others, called in a forked process for each layout of memory until one will do: it may end that process."""

import signal
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.engines.local.child import Child, keep_quiet
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import IgkdError

if TYPE_CHECKING:
    from igkd_hpo.assets.layout import Layout
    from igkd_hpo.trial.step import Step, StepTask
    from igkd_hpo.trial.teacher_step import TeacherTask

_PATIENCE_SECONDS = 600.0  # of a network that waits for what never comes; three steps of few images take seconds
_LOOK_SECONDS = 1.0  # how often to see that the server still runs
_LAYOUTS: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")  # the faster one first


@dataclass(frozen=True)
class Failed:
    """What happened in the last layout of memory, in words."""

    what: str


def try_layouts(server: ForkServer, task: "StepTask | TeacherTask") -> "Step | Layout | IgkdError | Failed":
    """Return what was found in the first layout that will do, and why it was not the one before; else what happened.

    Raises IgkdError where no process can be started.
    """
    why = None
    for layout in _LAYOUTS:
        answer = _run(server, replace(task, memory_format=layout))
        if isinstance(answer, IgkdError):
            return answer
        if not isinstance(answer, Failed):
            return replace(answer, why=why)
        why = answer.what
    return answer


def _run(server: ForkServer, task: "StepTask | TeacherTask") -> "Step | Layout | IgkdError | Failed":
    """Return what a process says of a task, or how it ended."""
    child = Child(server, _take, task)
    answer: Step | Layout | IgkdError | Failed | None = None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        while not child.ended:
            if time.monotonic() > deadline:
                return IgkdError(
                    f"a training step of {task.called} does not come to an end within {_PATIENCE_SECONDS:g} s; "
                    "see what its code waits for, or take another network"
                )
            wait(child.waitables(), _LOOK_SECONDS)
            for message in child.messages():
                answer = message
        if child.killed_for_memory:
            return IgkdError(f"memory ran out in a training step of {task.called}; free some, or leave it out")
        if answer is not None and child.exit_code == 0:
            return answer
        code = child.exit_code
        if code is None:
            return Failed("ends the server that its process is forked from")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return Failed(f"ends its process {how}")
    finally:
        child.close()


def _take(task: "StepTask | TeacherTask", pipe: Connection) -> None:
    """Take the steps in this process, and send what was found, or why it was not."""
    from igkd_hpo.trial.step import StepFailed, StepTask, take_steps
    from igkd_hpo.trial.teacher_step import take_teacher_steps

    keep_quiet()
    try:
        pipe.send(take_steps(task) if isinstance(task, StepTask) else take_teacher_steps(task))
    except IgkdError as error:
        pipe.send(error)
    except StepFailed as error:
        pipe.send(Failed(str(error)))
