"""A worker for every open study of a database, one trial of each in turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from igkd_hpo.engines.attempt_runner import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, AttemptRun, Costs, Slot
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.fork_server import fork_server
from igkd_hpo.engines.local.preparation import prepare_existing
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, StorageError
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import SharedStorage, mask
from igkd_hpo.search.study import SearchStudy, launches
from igkd_hpo.settings import Settings

LOOK_SECONDS = 3.0  # how often to look for a trial while there is none


@dataclass(kw_only=True)
class _Launched:
    """A study as it was launched; launching it again gives it another chance here.

    Args:
        prepared: its assets are here, and are the study's.
        unfit: it cannot be run here, which was said.
    """

    launch: str
    study: SearchStudy
    leases: Leases = field(repr=False)
    costs: Costs = field(default_factory=dict, repr=False)
    prepared: bool = False
    unfit: bool = False


class OpenStudies:
    """Runs trials of every study that is neither finished nor stopped, the one launched last first, until a signal.

    Args:
        on_event: told of everything that happens, with the name of the study.
        on_message: told what a person should read.
    """

    def __init__(
        self,
        storage: SharedStorage,
        settings: Settings,
        worker: Worker,
        slot: Slot,
        *,
        stop: StopSignal,
        on_event: Callable[[str, Event], None],
        on_message: Callable[[str], None],
    ) -> None:
        self._storage = storage
        self._settings = settings
        self._worker = worker
        self._slot = slot
        self._stop = stop
        self._on_event = on_event
        self._on_message = on_message
        self._known: dict[str, _Launched] = {}
        self._last_served: dict[str, float] = {}
        self._waiting = False

    def run(self) -> None:
        """Work, or wait for a study to work on, until a signal comes."""
        fork_server().keep_running()
        retry = FIRST_RETRY_SECONDS
        while self._stop.received is None:
            try:
                served = self._serve_one()
            except StorageError as error:
                self._on_message(str(error))
                wait([self._stop.descriptor], retry)
                retry = min(2 * retry, LAST_RETRY_SECONDS)
                continue
            retry = FIRST_RETRY_SECONDS
            if not served and self._stop.received is None:
                wait([self._stop.descriptor], LOOK_SECONDS)

    def _serve_one(self) -> bool:
        """Run one attempt at a trial of the study whose turn it is; False when there is none to be had."""
        newest_first = launches(self._storage)[::-1]
        found = [known for name, launch in newest_first if (known := self._look_up(name, launch)) is not None]
        found.sort(key=lambda known: self._last_served.get(known.study.name, 0.0))  # keeps the order among equals
        for known in found:
            if self._stop.received is not None:
                return False
            try:
                if self._is_open(known.study) and self._serve(known):
                    self._waiting = False
                    return True
            except StorageError:
                raise
            except IgkdError as error:
                self._pass_over(known, str(error))
        if not self._waiting:
            self._waiting = True
            self._on_message(f"nothing to do in {mask(self._storage.url)}; waiting for a study")
        return False

    def _look_up(self, name: str, launch: str) -> _Launched | None:
        known = self._known.get(name)
        if known is None or known.launch != launch:
            try:
                study = SearchStudy(self._storage, name)
            except StorageError:
                raise
            except (IgkdError, KeyError) as error:  # of a newer version, or deleted a moment ago
                if known is None:
                    self._on_message(f"study {name} is passed over: {error}")
                return None
            leases = Leases(study, lease_seconds=self._settings.lease_seconds)
            known = self._known[name] = _Launched(launch=launch, study=study, leases=leases)
        return None if known.unfit else known

    @staticmethod
    def _is_open(study: SearchStudy) -> bool:
        record = study.read()
        return record.stopped is None and study.counts().finished < record.n_trials

    def _serve(self, known: _Launched) -> bool:
        study = known.study
        if not known.prepared and not self._prepare(known):
            return False
        claim = known.leases.claim(self._worker)
        if not isinstance(claim, Claim):
            return False
        self._last_served[study.name] = time.monotonic()

        def emit(event: Event) -> None:
            self._on_event(study.name, event)

        AttemptRun(
            claim,
            known.leases,
            study,
            self._settings,
            self._slot,
            emit=emit,
            stop=self._stop,
            costs=known.costs,
        ).run()
        return True

    def _prepare(self, known: _Launched) -> bool:
        try:
            prepare_existing(known.study, self._settings, device=self._slot.device, stop=self._stop)
        except Interrupted:
            return False
        known.prepared = True
        return True

    def _pass_over(self, known: _Launched, why: str) -> None:
        known.unfit = True
        self._on_message(f"study {known.study.name} is passed over until it is launched again: {why}")
