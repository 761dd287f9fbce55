"""Make a study's assets in a forked process, for a caller that must stay light and draws the progress itself."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.engines.engine import Host
from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.errors import AssetError, IgkdError, Interrupted, first_line
from igkd_hpo.remote import Remote
from igkd_hpo.settings import Settings

_LOOK_SECONDS = 1.0  # how often to see that the server still runs


@dataclass(frozen=True, kw_only=True)
class PrepareTask:
    """A study whose assets are to be made on a device: auto, cpu, cuda or cuda:N; `pinned` as in `Engine.prepare`."""

    study: Study
    settings: Settings
    device: str
    pinned: AssetPins | None


class _Began(NamedTuple):
    task: int
    description: str
    total: int


class _Advanced(NamedTuple):
    task: int
    units: int


class _Ended(NamedTuple):
    task: int


class _Said(NamedTuple):
    text: str
    warning: bool


def prepare_in_child(
    server: ForkServer, study: Study, host: Host, progress: Progress, pinned: AssetPins | None
) -> AssetPins:
    """Make what is missing; return what the data and the teacher are here.

    Raises:
        Interrupted: a signal came to us.
        AssetError: the child did not come to an end.
        IgkdError: what the child raised.
    """
    task = PrepareTask(study=study, settings=host.settings, device=host.device, pinned=pinned)
    child = Child(server, run_preparation, task)
    try:
        with ExitStack() as tasks:  # left by an error, a piece of work is not shown as done
            return _pins(child, _follow(child, host, _Relay(progress, tasks)), study, host)
    finally:
        child.close()


def _pins(child: Child, answer: AssetPins | IgkdError | None, study: Study, host: Host) -> AssetPins:
    if host.stop.received is not None:
        raise Interrupted(
            f"stopped while the assets of {study.name} were made; run again: work already done is kept",
            host.stop.received,
        )
    if isinstance(answer, IgkdError):
        raise answer
    if answer is not None:
        return answer
    code = child.exit_code
    if code is None or code < 0:
        how = "the end of the server that it was forked from" if code is None else signal.Signals(-code).name
        raise AssetError(
            f"preparing the assets was ended by {how}; if memory ran out, free some "
            "or use smaller images, then run again: work already done is kept"
        )
    raise AssetError(f"preparing the assets ended with exit code {code}: see above")


def _follow(child: Child, host: Host, relay: "_Relay") -> AssetPins | IgkdError | None:
    """Return the child's answer once it has one, or None when it has ended without; on a signal it is asked to end."""
    while not child.ended:
        if host.stop.received is None:
            wait([host.stop.descriptor, *child.waitables()], _LOOK_SECONDS)
        elif child.identity is None:
            return None
        else:
            child.send_signal(signal.SIGTERM)
            wait(child.waitables(), _LOOK_SECONDS)
        for message in child.messages():
            if isinstance(message, AssetPins | IgkdError):
                return message
            relay.take(message)
    return None


class _Relay:
    """Shows a child's progress as ours; `tasks` is left with what has not ended."""

    def __init__(self, progress: Progress, tasks: ExitStack) -> None:
        self._progress = progress
        self._tasks = tasks
        self._advance: dict[int, Callable[[int], None]] = {}
        self._open: dict[int, ExitStack] = {}

    def take(self, message: object) -> None:
        match message:
            case _Began(task, description, total):
                self._open[task] = self._tasks.enter_context(ExitStack())
                self._advance[task] = self._open[task].enter_context(self._progress.task(description, total))
            case _Advanced(task, units):
                self._advance[task](units)
            case _Ended(task):
                self._open.pop(task).close()
            case _Said(text, warning):
                (self._progress.warn if warning else self._progress.note)(text)


def run_preparation(task: PrepareTask, pipe: Connection) -> None:
    """Make the assets in this process; send the progress, then what they are or why they cannot be made."""
    from igkd_hpo.distillation.heap import keep_freed_memory
    from igkd_hpo.trial.preparation import prepare_study
    from igkd_hpo.trial.shared_assets import fetch_assets, share_assets

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    keep_freed_memory()
    progress = _PipeProgress(pipe)
    try:
        remote = None if task.settings.remote is None else Remote(task.settings.remote)
        if remote is not None:
            remote.check()
        refuse_untrainable(task.study, task.settings, device=task.device, progress=progress)
        pinned = task.pinned
        if remote is None or pinned is None or not fetch_assets(task.study, pinned, task.settings, remote, progress):
            made = prepare_study(task.study, task.settings, device=task.device, progress=progress, pinned=pinned)
            pinned = made.pins
        if remote is not None:
            share_assets(task.study, task.settings, remote)
        progress.send(pinned)
    except IgkdError as error:
        progress.send(error)
    except Exception as error:
        traceback.print_exc()
        progress.send(
            AssetError(f"preparing the assets failed with {type(error).__name__}: {first_line(error)}; please report")
        )


@dataclass
class _PipeProgress:
    """Progress that another process shows."""

    pipe: Connection
    _tasks: int = 0
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: object) -> None:
        with self._one_at_a_time:
            self.pipe.send(message)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        task = self._tasks
        self._tasks += 1
        self.send(_Began(task=task, description=description, total=total))
        yield lambda count: self.send(_Advanced(task=task, units=count))
        self.send(_Ended(task=task))

    def note(self, text: str) -> None:
        self.send(_Said(text=text, warning=False))

    def warn(self, text: str) -> None:
        self.send(_Said(text=text, warning=True))
