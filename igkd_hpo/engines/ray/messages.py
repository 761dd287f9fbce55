"""Messages between an engine and its driver, the process that talks to Ray for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from igkd_hpo.assets.parcel import Parcel
from igkd_hpo.engines.engine import SlotState
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.ray.request import Request, Resources
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.search.lease import Worker
from igkd_hpo.settings import Settings


@dataclass(frozen=True)
class Connect:
    """Asks for a cluster at an address; answered by a `Cluster`, or an IgkdError."""

    address: str


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that was reached: its versions, and what each living node has."""

    ray: str
    python: str
    nodes: tuple[Resources, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """The surroundings in which a study runs on a node.

    Args:
        settings: of the caller.
        folder: in which `storage/` is on a node, `~` for its home; None for the caller's own path.
        token: name of a file below the caller's `storage/`; whoever sees it there shares the folder.
        parcel: what is sent to who does not; None where it is not known yet.
    """

    settings: Settings
    folder: str | None
    token: str
    parcel: Parcel | None


@dataclass(frozen=True)
class Probe:
    """Asks every node that has room for a worker what it finds; answered by a list of `NodeReport`, or an IgkdError."""

    request: Request
    place: Place


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """A node's findings.

    Args:
        torch: version; None where it is not installed.
        database: why it cannot be used, in words; None where it can.
        remote: why the remote folder cannot; None where it can, or where there is none.
        shared: whether the node sees the caller's folder.
        missing_bytes: of assets, that are to be sent.
        fault: why no worker can run there; None where one can.
    """

    host: str
    igkd_hpo: str = ""
    torch: str | None = None
    database: str | None = None
    remote: str | None = None
    shared: bool = True
    missing_bytes: int = 0
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Asks for the workers of a study; answered by `Told`, `Said` and `States`, until `Stop`.

    Args:
        study: its name in the database.
        study_folder: its name below `storage/`.
    """

    study: str
    study_folder: str
    request: Request
    place: Place
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Told:
    """An event of a slot's worker."""

    slot: int
    event: Event


@dataclass(frozen=True)
class Said:
    """A line for people."""

    text: str


@dataclass(frozen=True)
class States:
    """The state of every slot, after each look at them."""

    slots: Sequence[SlotState]


@dataclass(frozen=True)
class Stop:
    """Asks to end all workers in order; answered by `Stopped`, after which the driver leaves."""


@dataclass(frozen=True)
class Stopped:
    """All workers have ended; those that had to be killed may have held a trial."""

    killed: Sequence[Worker]


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """The argument of a worker's actor.

    Args:
        sender: Ray's id of the node that has the assets below `sender_root`.
    """

    study: str
    study_folder: str
    place: Place
    slot: Slot
    sender: str
    sender_root: Path


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """The place of an actor: its node's name, and whether it sees the caller's folder; `fault` as in a report."""

    host: str
    shared: bool
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class WorkerEnd:
    """How a worker ended: exit code, below 0 the signal; `why`, in words, may be empty; `where` more can be read."""

    exit_code: int
    why: str
    where: str
