"""A reporter that sends what a trial says through a pipe to its worker."""

import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from igkd_hpo.trial.messages import Message, StepsDone

if TYPE_CHECKING:
    from igkd_hpo.distillation.training import Training

_STEPS_SECONDS = 3.0


class PipeReporter:
    """Sends what a trial says, from any of its threads."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._one_at_a_time = threading.Lock()

    def report(self, message: Message) -> None:
        """Send a message. Raises OSError: nobody is left who could hear it."""
        with self._one_at_a_time:
            self._pipe.send(message)

    def watch(self, training: "Training") -> None:
        """Tell from now on how far the training is, whenever that has changed."""
        threading.Thread(target=self._tell_steps, args=(training,), daemon=True).start()

    def _tell_steps(self, training: "Training") -> None:
        told = -1
        while True:
            if training.steps_done != told:
                told = training.steps_done
                try:
                    self.report(StepsDone(steps=told))
                except OSError:  # the pipe is closed: the process is about to leave
                    return
            time.sleep(_STEPS_SECONDS)
