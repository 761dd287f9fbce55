"""The engine of a Ray cluster: an actor for each worker, and one process here that talks to Ray."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from igkd_hpo.assets.parcel import Parcel
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.engines.engine import Host, SlotState, Watcher, drop_worker
from igkd_hpo.engines.local.engine import LocalEngine
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.probe import Probe
from igkd_hpo.engines.ray import messages
from igkd_hpo.engines.ray.driver import Driver
from igkd_hpo.engines.ray.inventory import pack_assets, pack_here
from igkd_hpo.engines.ray.messages import NodeReport
from igkd_hpo.engines.ray.report import describe_node, refuse_unfit, remarks
from igkd_hpo.engines.ray.request import Request
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.files import create_file, make_folder, user_path
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.storage_url import is_server, mask
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted


class Ray:
    """Workers on a Ray cluster that runs already; assets are made here, and sent where this folder is not seen.

    Args:
        address: of the cluster, as `ray start --head` prints it; auto: RAY_ADDRESS, or the one of this machine.
        cpus_per_worker: cores that Ray counts for a worker, and threads of its trials.
        gpus_per_worker: at most 1; a fraction lets several workers share one GPU.
        memory_per_worker: bytes that Ray places by; None for none.
        folder: in which `storage/` is on a node, `~` for its home; None for the path of the current folder here.
        fork_server: as for `LocalEngine`.

    Raises:
        UsageError: these cannot be.
    """

    def __init__(
        self,
        *,
        address: str = "auto",
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
        memory_per_worker: int | None = None,
        folder: str | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        if address.startswith("ray://"):
            raise UsageError(
                f"--address {address} is for Ray's client; start this on a node of the cluster and leave --address "
                "out, or give HOST:PORT"
            )
        if folder is not None and not user_path(folder).is_absolute():
            raise UsageError(f"--folder {folder} is relative; begin it with / or ~")
        self._address = address
        self._folder = folder
        self._request = Request(cpus=cpus_per_worker, gpus=gpus_per_worker, memory=memory_per_worker)
        self._local = LocalEngine(fork_server)
        self._driver: Driver | None = None
        self._token: Path | None = None
        self._states: Sequence[SlotState] = ()

    def __enter__(self) -> "Ray":
        self._local.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None
        if self._token is not None:
            self._token.unlink(missing_ok=True)
        self._local.__exit__(*error)

    def prepare(self, study: Study, host: Host, progress: Progress, pinned: AssetPins | None) -> AssetPins:
        """See that the cluster can be used, then make what is missing of the assets on this host."""
        self._reach(host)
        return self._local.prepare(study, host, progress, pinned)

    def measure(self, study: Study, host: Host) -> Probe:
        """Refuse: what pays here says nothing about the nodes. Raises UsageError."""
        raise UsageError("--workers auto measures one machine; with --engine ray give a number")

    def start(self, study: SearchStudy, host: Host, watcher: Watcher, *, slots: int) -> None:
        """Look around on the nodes, and start so many workers.

        Raises:
            UsageError: a node has another igkd-hpo, or none.
            StorageError: a node does not reach the database.
        """
        driver, room = self._reach(host)
        parcel = pack_assets(self._local.fork_server, study.config, host.settings)
        place = self._place(host.settings, parcel)
        reports: list[NodeReport] = driver.ask(messages.Probe(self._request, place))
        refuse_unfit(reports)
        for text in remarks(reports, host.settings):
            watcher.on_message(text)
        if room < slots:
            watcher.on_message(
                f"the cluster has room for {room} of {counted(slots, 'worker')} of {self._request}; the others wait"
            )
        device = host.device if self._request.gpus or host.device != "auto" else "cpu"
        self._watcher, self._leases = watcher, Leases(study, lease_seconds=host.settings.lease_seconds)
        self._states = [SlotState(number=number, phase="waiting") for number in range(slots)]
        driver.send(
            messages.Launch(
                study=study.name,
                study_folder=study.folder,
                request=self._request,
                place=place,
                slots=tuple(Slot(number=n, device=device, threads=self._request.threads) for n in range(slots)),
            )
        )

    def poll(self) -> Sequence[SlotState]:
        """Wait a moment, pass on what workers say, and return every slot's state. Raises IgkdError: no cluster."""
        assert self._driver is not None, "poll comes after start"
        assert self._token is not None, "a start makes it"
        with suppress(OSError):
            self._token.touch()  # else `clean` would take it for that of a launch that was killed
        for message in self._driver.messages():
            self._take(message)
        return self._states

    def stop(self) -> None:
        """End the workers in order, wherever they are."""
        if self._driver is not None and self._states:  # else nothing was launched, and nobody would answer
            for message in self._driver.stop():
                self._take(message)

    def describe(self, study: Study, host: Host, *, slots: int) -> list[str]:
        """Say in several lines what the cluster has for so many workers, and what its nodes find. Starts nothing.

        Raises:
            UsageError: the cluster cannot be used.
        """
        driver, room = self._reach(host)
        try:
            parcel = pack_here(study, host.settings)
        except IgkdError:  # they are made first
            parcel = None
        cluster, settings = driver.cluster, host.settings
        reports: list[NodeReport] = driver.ask(messages.Probe(self._request, self._place(settings, parcel)))
        nodes = counted(len(cluster.nodes), "node")
        waits = f", {slots - room} wait" if room < slots else ""
        return [
            f"Ray cluster at {self._address}: Ray {cluster.ray}, Python {cluster.python}, {nodes}",
            f"workers: {slots} of {self._request} each; room for {min(room, slots)}{waits}",
            *(describe_node(report, packed=parcel is not None) for report in reports),
            *remarks(reports, settings),
        ]

    def _reach(self, host: Host) -> tuple[Driver, int]:
        """Connect, once, and return how many workers the cluster has room for. Raises UsageError: none can run."""
        if host.device.startswith("cuda") and not self._request.gpus:
            raise UsageError(f"--device {host.device} needs --gpus-per-worker, 1 or a share of one")
        if self._driver is None:
            if find_spec("ray") is None:
                raise UsageError("--engine ray needs the package ray; pip install 'igkd-hpo[ray]'")
            self._driver = Driver(self._address, host.settings.paths.logs / "ray.log", host.stop)
            self._driver.connect()
        nodes = self._driver.cluster.nodes
        if len(nodes) > 1 and not is_server(host.settings.storage_url):
            raise UsageError(
                f"{mask(host.settings.storage_url)} is a file of one machine, and the cluster has {len(nodes)} nodes; "
                "give a database that all reach: --storage postgresql+psycopg://USER@HOST/DATABASE"
            )
        return self._driver, self._request.room(nodes)

    def _place(self, settings: Settings, parcel: Parcel | None) -> messages.Place:
        if self._token is None:
            token = settings.paths.root / f".ray-{secrets.token_hex(8)}"
            make_folder(token.parent)
            create_file(token)
            self._token = token
        return messages.Place(settings=settings, folder=self._folder, token=self._token.name, parcel=parcel)

    def _take(self, message: object) -> None:
        match message:
            case messages.Told(slot, event):
                self._watcher.on_event(slot, event)
            case messages.Said(text):
                self._watcher.on_message(text)
            case messages.States(slots):
                self._states = slots
            case messages.Stopped(killed):
                for worker in killed:
                    drop_worker(self._leases, self._watcher, worker)
