"""The trials of every open study of a database, one of each in turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from igkd_hpo.engines.attempt_runner import Costs
from igkd_hpo.engines.worker import Job
from igkd_hpo.errors import IgkdError, Interrupted, StorageError, UsageError
from igkd_hpo.search.counts import count
from igkd_hpo.search.enqueued import enqueued_trials
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, launches
from igkd_hpo.settings import Settings

LOOK_SECONDS = 3.0  # how often to look for a trial while there is none


@dataclass(kw_only=True)
class _Launched:
    """A study as it was launched.

    Args:
        prepared: its assets are here, and are the study's.
    """

    launch: str
    study: SearchStudy
    leases: Leases = field(repr=False)
    costs: Costs = field(default_factory=dict, repr=False)
    prepared: bool = False


class OpenStudies:
    """Trials of every study that is neither finished nor stopped, the one launched last first; there is no end of them.

    Args:
        prepare: makes what is missing of a study's assets here. Raises IgkdError: they cannot be made; Interrupted.
        on_message: told what a person should read.
    """

    def __init__(
        self,
        storage: SharedStorage,
        settings: Settings,
        worker: Worker,
        *,
        prepare: Callable[[SearchStudy], None],
        on_message: Callable[[str], None],
    ) -> None:
        self._storage = storage
        self._settings = settings
        self.pause = min(LOOK_SECONDS, settings.heartbeat_seconds)
        self._worker = worker
        self._prepare = prepare
        self._on_message = on_message
        self._known: dict[str, _Launched] = {}
        self._passed_over: dict[str, str] = {}  # launches of studies that cannot be run here; a new one is tried again
        self._last_served: dict[str, float] = {}
        self._waiting = False

    def claim(self) -> Job | Idle:
        """Claim a trial of the study whose turn it is; WAIT when there is none to be had. Raises StorageError."""
        newest_first = launches(self._storage)[::-1]
        found = [known for name, launch in newest_first if (known := self._look_up(name, launch)) is not None]
        found.sort(key=lambda known: self._last_served.get(known.study.name, 0.0))  # keeps the order among equals
        for known in found:
            try:
                job = self._claim_of(known) if self._is_open(known.study) else None
            except StorageError:
                raise
            except Interrupted:  # while its assets were made
                return Idle.WAIT
            except IgkdError as error:
                self._pass_over(known.study.name, known.launch, error)
                continue
            if job is not None:
                self._waiting = False
                return job
        if not self._waiting:
            self._waiting = True
            self._on_message(f"nothing to do in {self._storage.place}; waiting for a study")
        return Idle.WAIT

    def lose(self, job: Job, error: UsageError) -> None:
        """Pass over the study of a job, which was deleted or damaged in the middle of it."""
        self._pass_over(job.study.name, self._known[job.study.name].launch, error)

    def _look_up(self, name: str, launch: str) -> _Launched | None:
        if self._passed_over.get(name) == launch:
            return None
        known = self._known.get(name)
        if known is None or known.launch != launch:
            try:
                study = SearchStudy(self._storage, name)
            except StorageError:
                raise
            except KeyError:  # deleted a moment ago
                return None
            except IgkdError as error:  # damaged, or of a newer version
                self._pass_over(name, launch, error)
                return None
            leases = Leases(study, lease_seconds=self._settings.lease_seconds)
            known = self._known[name] = _Launched(launch=launch, study=study, leases=leases)
        return known

    @staticmethod
    def _is_open(study: SearchStudy) -> bool:
        record = study.read()
        if record.stopped is not None:
            return False
        trials = study.trials()
        return count(trials).finished < record.n_trials or bool(enqueued_trials(trials))

    def _claim_of(self, known: _Launched) -> Job | None:
        if not known.prepared:
            self._prepare(known.study)
            known.prepared = True
        claim = known.leases.claim(self._worker)
        if not isinstance(claim, Claim):
            return None
        self._last_served[known.study.name] = time.monotonic()
        return Job(claim=claim, study=known.study, leases=known.leases, costs=known.costs)

    def _pass_over(self, name: str, launch: str, error: IgkdError) -> None:
        self._passed_over[name] = launch
        self._on_message(f"study {name} is passed over until it is launched again: {error}")
