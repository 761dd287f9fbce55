"""The interface of an engine, which makes assets, and starts, watches and stops the slots of a study.

Who works on which trial the database says, under leases; an engine only places workers and restarts them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.probe import Probe
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import StorageError
from igkd_hpo.search.lease import Leases, Worker
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings

REFRESH_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """The surroundings in which an engine works for its caller.

    Args:
        device: auto, cpu, cuda or cuda:N.
        stop: ends what runs, in order.
    """

    settings: Settings
    device: str
    stop: StopSignal


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Callbacks for whoever watches a study run.

    Args:
        on_event: of everything that a worker says, with its slot.
        on_message: what a person should read.
        on_refresh: every few seconds, when the database may hold something new. It may raise StorageError.
    """

    on_event: Callable[[int, Event], None]
    on_message: Callable[[str], None]
    on_refresh: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class SlotState:
    """The state of a slot.

    Args:
        phase: waiting, for room in a cluster; running; restarting, after a pause; done: nothing is left for it; down:
            it could not be kept alive.
    """

    number: int
    phase: Literal["waiting", "running", "restarting", "done", "down"]

    @property
    def ended(self) -> bool:
        """Whether the slot does nothing any more."""
        return self.phase in ("done", "down")


class Engine(Protocol):
    """Runs workers somewhere. A context manager: leaving it lets go of everything that was started for it."""

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *error: object) -> None: ...

    def prepare(self, study: Study, host: Host, progress: Progress, pinned: AssetPins | None) -> AssetPins:
        """Make what is missing of a study's assets, and return what the data and the teacher are here.

        Args:
            pinned: what the study has, where it exists: for other images nothing is made.

        Raises:
            Interrupted: a signal came.
            DataError: the images are not those that are pinned.
            IgkdError: the assets cannot be made.
        """
        ...

    def measure(self, study: Study, host: Host) -> Probe:
        """Measure how many slots pay. Raises Interrupted, UsageError, IgkdError."""
        ...

    def start(self, study: SearchStudy, host: Host, watcher: Watcher, *, slots: int) -> None:
        """Start so many workers of a study. Raises UsageError: more than the engine has."""
        ...

    def poll(self) -> Sequence[SlotState]:
        """Wait a moment for something to happen, deal with it, and return every slot's state."""
        ...

    def stop(self) -> None:
        """End what runs, in order, so that its trials wait for another attempt; also what `start` left half done."""
        ...


def prepare_existing(engine: Engine, study: SearchStudy, host: Host, progress: Progress) -> None:
    """Make what is missing of a study's assets here, and see that they are the study's.

    Raises:
        Interrupted, IgkdError: as `Engine.prepare`.
        DataError, TeacherError: this host's content is not the study's.
    """
    pinned = study.read().pins
    here = engine.prepare(study.config, host, progress, pinned)
    if pinned is not None:
        check_pins(study.name, pinned, here)


def run_slots(engine: Engine, study: SearchStudy, host: Host, watcher: Watcher, *, slots: int) -> bool:
    """Run a study's workers until each has left by itself, or a signal came.

    Returns:
        False when a worker could not be kept alive.
    """
    leases = Leases(study, lease_seconds=host.settings.lease_seconds)
    next_refresh = 0.0
    try:
        engine.start(study, host, watcher, slots=slots)
        while True:
            states = engine.poll()
            if host.stop.received is not None or all(state.ended for state in states):
                return all(state.phase == "done" for state in states)
            if time.monotonic() >= next_refresh:
                refresh(leases, watcher)
                next_refresh = time.monotonic() + min(REFRESH_SECONDS, host.settings.heartbeat_seconds)
    finally:
        engine.stop()
        refresh(leases, watcher)


def refresh(leases: Leases, watcher: Watcher) -> None:
    """Free what the dead hold, and let the watcher read the database."""
    try:
        for reaped in leases.reap():
            watcher.on_message(str(reaped))
    except StorageError as error:
        watcher.on_message(str(error))
        return
    let_read(watcher)


def drop_worker(leases: Leases, watcher: Watcher, worker: Worker) -> None:
    """Free what a worker held that was killed; tell the watcher where the database is away."""
    try:
        leases.drop_worker(worker)
    except StorageError as error:
        watcher.on_message(f"{error}; the next launch frees the trial of {worker.name}")


def let_read(watcher: Watcher) -> None:
    """Let the watcher read the database; tell it where that is away."""
    try:
        watcher.on_refresh()
    except StorageError as error:
        watcher.on_message(str(error))
