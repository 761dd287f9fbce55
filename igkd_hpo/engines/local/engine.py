"""The engine of this host: a supervisor, worker processes, and trial processes forked from one server."""

from collections.abc import Sequence

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.engines.engine import Host, SlotState, Watcher
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.preparation import prepare_in_child
from igkd_hpo.engines.local.probe import measure_workers
from igkd_hpo.engines.local.supervisor import Supervisor
from igkd_hpo.engines.probe import Probe
from igkd_hpo.search.study import SearchStudy


class LocalEngine:
    """Workers and trials in processes of this host, which share one import of torch.

    Args:
        fork_server: one that was started early, to import torch meanwhile; it is this engine's from now on.
    """

    def __init__(self, fork_server: ForkServer | None = None) -> None:
        self.fork_server = fork_server or ForkServer()
        self._supervisor: Supervisor | None = None

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.fork_server.close()

    def prepare(self, study: Study, host: Host, progress: Progress, pinned: AssetPins | None) -> AssetPins:
        """Make what is missing of a study's assets in a process of its own. Raises as `Engine.prepare`."""
        for name in (study.teacher.architecture, *study.hyperparameters.words("architecture")):
            if (library := find_architecture(name).library) is not None:
                self.fork_server.import_too(library)
        return prepare_in_child(self.fork_server, study, host, progress, pinned)

    def measure(self, study: Study, host: Host) -> Probe:
        """Measure how many workers pay. Raises as `Engine.measure`."""
        return measure_workers(self.fork_server, study, host)

    def start(self, study: SearchStudy, host: Host, watcher: Watcher, *, slots: int) -> None:
        """Start so many worker processes."""
        self._supervisor = Supervisor(study, host, watcher, self.fork_server, slots=slots)
        self._supervisor.start()

    def poll(self) -> Sequence[SlotState]:
        """Wait a moment, start again what has died, and return every slot's state."""
        assert self._supervisor is not None, "poll comes after start"
        return self._supervisor.poll()

    def stop(self) -> None:
        """End the workers in order; what stands in the way of that is killed after some seconds."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
