"""A worker: one slot that claims trials, runs each attempt in a process of its own, and alone talks to the database.

It never imports torch. The fork server does, once, so that a trial process is ready in hundredths of a second.
"""

from collections.abc import Callable
from multiprocessing.connection import wait

from igkd_hpo.engines.attempt_runner import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, AttemptRun, Costs, Slot
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.fork_server import fork_server
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import StorageError
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings

CLAIM_SECONDS = 1.0  # how often to ask again while others hold the last trials


class WorkerLoop:
    """Claims and runs trials of one study until none is left or a signal comes."""

    def __init__(
        self,
        study: SearchStudy,
        settings: Settings,
        worker: Worker,
        slot: Slot,
        *,
        emit: Callable[[Event], None],
        stop: StopSignal,
    ) -> None:
        self._study = study
        self._settings = settings
        self._worker = worker
        self._slot = slot
        self._emit = emit
        self._stop = stop
        self._leases = Leases(study, lease_seconds=settings.lease_seconds)
        self._costs: Costs = {}

    def run(self) -> Idle | None:
        """Work until the study is finished or stopped; None when a signal ended it first."""
        fork_server().keep_running()
        retry = FIRST_RETRY_SECONDS
        while self._stop.received is None:
            try:
                claim = self._leases.claim(self._worker)
            except StorageError as error:
                self._emit(Event(kind="storage", reason=str(error)))
                wait([self._stop.descriptor], retry)
                retry = min(2 * retry, LAST_RETRY_SECONDS)
                continue
            retry = FIRST_RETRY_SECONDS
            if claim is Idle.WAIT:
                self._emit(Event(kind="waiting"))
                wait([self._stop.descriptor], CLAIM_SECONDS)
            elif isinstance(claim, Claim):
                AttemptRun(
                    claim,
                    self._leases,
                    self._study,
                    self._settings,
                    self._slot,
                    emit=self._emit,
                    stop=self._stop,
                    costs=self._costs,
                ).run()
            else:
                return claim
        return None
