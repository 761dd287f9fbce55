"""Outcomes of an attempt, and the one function that writes them into the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from igkd_hpo.search.lease import Claim, Leases


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A trial that trained to its last epoch; `accuracy` is the study's metric on validation, a fraction."""

    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A trial that ends early.

    Args:
        reason: in words; None asks the pruner, whose bar it missed.
        epoch, accuracy: of the report that it was pruned at.
        excess: relative excess over limits that were found to be exceeded while it trained.
    """

    reason: str | None
    epoch: int | None = None
    accuracy: float | None = None
    excess: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A trial that cannot be trained, and could not the next time."""

    reason: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Released:
    """A trial that waits for another attempt; too many `counted` ones in a row without progress end it."""

    reason: str
    counted: bool


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A trial whose lease is another worker's, or nobody's: nothing was written."""

    reason: str = "the lease is gone: another worker has or had the trial"


Outcome = Completed | Pruned | Failed | Released | Lost


def record(
    outcome: Outcome, leases: Leases, claim: Claim, attributes: Mapping[str, Any], *, epochs_gained: bool
) -> Outcome:
    """Write what became of an attempt, and return it as the database has it: Lost where the lease was gone.

    Args:
        attributes: user attributes of the trial, of an outcome that ends it.
        epochs_gained: the attempt finished an epoch that was not there before.

    Raises:
        StorageError: the database is away; nothing was written, and the call can be repeated.
    """
    match outcome:
        case Completed(accuracy=accuracy):
            written = leases.complete(claim, accuracy, attributes)
        case Pruned(reason=None):
            pruned = Pruned(reason=leases.why_pruned(claim), epoch=outcome.epoch, accuracy=outcome.accuracy)
            return record(pruned, leases, claim, attributes, epochs_gained=epochs_gained)
        case Pruned(reason=str() as reason):
            if outcome.excess:
                leases.annotate(claim, {}, excess=outcome.excess)
            written = leases.prune(claim, reason, attributes)
        case Failed():
            error = {"error": outcome.traceback or outcome.reason}
            written = leases.fail(claim, outcome.reason, {**attributes, **error})
        case Released():
            # A lease that is gone is as good as given back.
            leases.release(claim, outcome.reason, counted=outcome.counted, epochs_gained=epochs_gained)
            return outcome
        case _:
            return outcome
    return outcome if written else Lost()
