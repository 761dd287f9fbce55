"""A worker: claims trials, runs each attempt, and alone talks to the database. It never imports torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Protocol

from igkd_hpo.engines.attempt_runner import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    AttemptRunner,
    Costs,
)
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.running_trial import Slot, Start
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings

CLAIM_SECONDS = 1.0  # how often to ask again while others hold the last trials


@dataclass(frozen=True, kw_only=True)
class Job:
    """A claimed trial and what running it needs; `costs` is shared by all trials of the study."""

    claim: Claim
    study: SearchStudy
    leases: Leases
    costs: Costs


class Source(Protocol):
    """A supply of trials for a worker; `pause` is how many seconds to wait while there is none."""

    pause: float

    def claim(self) -> Job | Idle:
        """Claim a trial. Raises StorageError: the database is away; ask again."""
        ...

    def lose(self, job: Job, error: UsageError) -> None:
        """Go on without a job's study, which was deleted or damaged. Raises the error: there is no other study."""
        ...


@dataclass(kw_only=True)
class OneStudy:
    """The trials of one study, until none is left."""

    study: SearchStudy
    settings: Settings
    worker: Worker
    _costs: Costs = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.pause = min(CLAIM_SECONDS, self.settings.heartbeat_seconds)
        self._leases = Leases(self.study, lease_seconds=self.settings.lease_seconds)

    def claim(self) -> Job | Idle:
        claim = self._leases.claim(self.worker)
        if not isinstance(claim, Claim):
            return claim
        return Job(claim=claim, study=self.study, leases=self._leases, costs=self._costs)

    def lose(self, job: Job, error: UsageError) -> None:
        raise error


def work(
    source: Source,
    settings: Settings,
    slot: Slot,
    *,
    start: Start,
    stop: StopSignal,
    on_event: Callable[[str, Event], None],
) -> Idle | None:
    """Claim and run trials until the source has none for good; None when a signal ended it first.

    Args:
        on_event: told of everything that happens, with the name of the study; empty before there is one.

    Raises:
        UsageError: the source's only study was deleted or damaged.
        IgkdError: this host cannot start a trial.
    """
    retry = FIRST_RETRY_SECONDS
    while stop.received is None:
        try:
            job = source.claim()
        except StorageError as error:
            on_event("", Event(kind="storage", reason=str(error)))
            wait([stop.descriptor], retry)
            retry = min(2 * retry, LAST_RETRY_SECONDS)
            continue
        retry = FIRST_RETRY_SECONDS
        if job is Idle.WAIT:
            on_event("", Event(kind="waiting"))
            wait([stop.descriptor], source.pause)
        elif isinstance(job, Idle):
            return job
        else:
            attempt = AttemptRunner(
                job.claim,
                job.leases,
                job.study,
                settings,
                slot,
                start=start,
                emit=partial(on_event, job.study.name),
                stop=stop,
                costs=job.costs,
            )
            try:
                attempt.run()
            except UsageError as error:
                source.lose(job, error)
    return None
