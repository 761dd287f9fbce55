"""Find, in a forked process that has torch, what a study's trials read of the assets here."""

from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from igkd_hpo.assets.parcel import Parcel, pack
from igkd_hpo.config.study import Study
from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import AssetError, IgkdError
from igkd_hpo.settings import Settings

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class InventoryTask:
    """A study whose assets were prepared here."""

    study: Study
    settings: Settings


def pack_assets(server: ForkServer, study: Study, settings: Settings) -> Parcel:
    """Make the parcel of a study's assets. Raises IgkdError: they cannot be opened."""
    child = Child(server, run_inventory, InventoryTask(study=study, settings=settings))
    try:
        while not child.ended:
            wait(child.waitables(), _LOOK_SECONDS)
            for message in child.messages():
                if isinstance(message, IgkdError):
                    raise message
                if isinstance(message, Parcel):
                    return message
    finally:
        child.close()
    raise AssetError(f"the assets of {study.name} cannot be opened here: {child.describe_end()}")


def pack_here(study: Study, settings: Settings) -> Parcel:
    """Open a study's assets in this process, as a trial does, and make the parcel. Raises IgkdError."""
    from igkd_hpo.assets.store import AssetStore
    from igkd_hpo.assets.study_assets import open_assets

    store = AssetStore(settings.paths.assets)
    open_assets(study, settings, store)
    return pack(store)


def run_inventory(task: InventoryTask, pipe: Connection) -> None:
    """Send the parcel, or why there is none."""
    try:
        pipe.send(pack_here(task.study, task.settings))
    except IgkdError as error:
        pipe.send(error)
