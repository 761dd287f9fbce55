"""A study's assets by way of its remote folder: put there by the host that made them, fetched by one that has none."""

from igkd_hpo.assets.parcel import chunks_at, find_parcel, pack, put_parcel, receive
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore, content_hash
from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.config.study import Study
from igkd_hpo.errors import AssetMissing
from igkd_hpo.remote import Remote
from igkd_hpo.settings import Settings
from igkd_hpo.trial.checkpoint import checkpoint_mark
from igkd_hpo.words import byte_size


def fetch_assets(study: Study, pins: AssetPins, settings: Settings, remote: Remote, progress: Progress) -> bool:
    """Return whether a study's assets, with that content, are here, after fetching what is missing.

    Such a host needs no images. Raises AssetError: they arrived damaged, or cannot be written or reached.
    """
    try:
        return open_assets(study, settings).pins == pins
    except AssetMissing:
        pass
    if (parcel := find_parcel(_key(study, pins), remote)) is None:
        return False
    received = receive(parcel, AssetStore(settings.paths.assets), chunks_at(remote, parcel), progress)
    progress.note(f"{byte_size(received)} of assets fetched from {remote.shown}")
    return open_assets(study, settings).pins == pins


def share_assets(study: Study, settings: Settings, remote: Remote) -> None:
    """Put a study's assets, which are here, into the remote folder. Raises AssetError."""
    store = AssetStore(settings.paths.assets)
    pins = open_assets(study, settings, store).pins
    put_parcel(pack(store), _key(study, pins), store, remote)


def _key(study: Study, pins: AssetPins) -> str:
    return content_hash(checkpoint_mark(study, pins))[:16]
