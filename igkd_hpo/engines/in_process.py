"""The engine that runs everything in the caller's process, one trial at a time: for tests, notebooks and debuggers."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.engines.engine import Host, SlotState, Watcher, let_read
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.engines.pipe_reporter import PipeReporter
from igkd_hpo.engines.probe import Probe
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.worker import OneStudy, work
from igkd_hpo.errors import UsageError
from igkd_hpo.search.identity import ProcessIdentity, this_process
from igkd_hpo.search.lease import Worker
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.trial.messages import Message
from igkd_hpo.trial.task import AttemptTask


class InProcessEngine:
    """One slot, without any other process; breakpoints in a training stop there.

    Only the first steps of networks that others wrote are tried in processes of their own.
    """

    def __init__(self) -> None:
        self._source: OneStudy | None = None

    def __enter__(self) -> "InProcessEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self._source = None

    def prepare(self, study: Study, host: Host, progress: Progress, pinned: AssetPins | None) -> AssetPins:
        """Make what is missing of a study's assets here. Raises as `Engine.prepare`."""
        from igkd_hpo.trial.preparation import prepare_study

        refuse_untrainable(study, host.settings, device=host.device, progress=progress)
        made = prepare_study(study, host.settings, device=host.device, progress=progress, pinned=pinned)
        return made.pins

    def measure(self, study: Study, host: Host) -> Probe:
        """Refuse: there is one slot. Raises UsageError."""
        raise UsageError("the engine in_process runs one trial at a time; give workers=1 instead of auto")

    def start(self, study: SearchStudy, host: Host, watcher: Watcher, *, slots: int) -> None:
        """Take the study whose trials `poll` runs. Raises UsageError: more than one slot."""
        if slots != 1:
            raise UsageError(f"the engine in_process runs one trial at a time, not {slots}; give workers=1")
        process = this_process()
        worker = Worker(name=f"{process.host}-{process.pid}", process=process)
        self._source = OneStudy(study=study, settings=host.settings, worker=worker)
        self._host, self._watcher = host, watcher

    def poll(self) -> Sequence[SlotState]:
        """Run trials until none is left, or a signal came; return the slot's state after that."""
        assert self._source is not None, "poll comes after start"
        host = self._host
        work(
            self._source,
            host.settings,
            Slot(number=0, device=host.device, threads=len(os.sched_getaffinity(0))),
            start=TrialThread,
            stop=host.stop,
            on_event=lambda _, event: self._tell(event),
        )
        return [SlotState(number=0, phase="done")]

    def _tell(self, event: Event) -> None:
        if event.kind == "alive":  # nobody else refreshes while a trial trains here
            let_read(self._watcher)
        elif event.kind == "reaped":
            self._watcher.on_message(str(event.reason))
        else:
            self._watcher.on_event(0, event)

    def stop(self) -> None:
        """Forget the study; `poll` has left nothing running."""
        self._source = None


class TrialThread:
    """A trial in a thread, while the caller's own shows life to the database.

    A thread cannot be killed: `close` lets it go on to the end of its epoch.
    """

    def __init__(self, task: AttemptTask) -> None:
        self._pipe, self._theirs = multiprocessing.Pipe(duplex=False)
        self._open = True
        self._thread = threading.Thread(target=_train, args=(task, self._theirs), daemon=True)
        self._thread.start()

    @property
    def identity(self) -> ProcessIdentity | None:
        """None: whoever frees the lease must not end the caller's process."""
        return None

    @property
    def ended(self) -> bool:
        """Whether the thread has ended and everything it said was read."""
        return not self._open

    @property
    def killed_for_memory(self) -> bool:
        """False: the kernel would kill the whole process."""
        return False

    def waitables(self) -> list[Any]:
        """Return the pipe while it is open."""
        return [self._pipe] if self._open else []

    def messages(self) -> Iterator[Message]:
        """Yield everything that has arrived by now."""
        while self._open:
            try:
                if not self._pipe.poll():
                    return
                yield self._pipe.recv()
            except EOFError:
                self._open = False

    def describe_end(self) -> str:
        """Return in words how it ended."""
        return "the trial's thread ended by itself"

    def close(self) -> None:
        """Wait until its epoch has ended, after which it finds that nobody hears it."""
        self._pipe.close()
        self._open = False
        self._thread.join()


def _train(task: AttemptTask, pipe: Connection) -> None:
    from igkd_hpo.distillation.threads import torch_threads
    from igkd_hpo.trial.attempt import attempt

    with pipe, torch_threads(task.threads):
        try:
            attempt(task, PipeReporter(pipe))
        except (BrokenPipeError, ConnectionResetError):  # it was closed
            return
