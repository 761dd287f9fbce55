"""The images of a study that exists: whether those here are still the same, before hours are spent on others."""

import json
from collections.abc import Sequence

from igkd_hpo.assets.dataset import Dataset, find_images
from igkd_hpo.assets.pins import AssetPins, check_images_pin
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.errors import AssetMissing, DataError
from igkd_hpo.image_folder import name_some
from igkd_hpo.names import accept_name
from igkd_hpo.settings import Settings


def check_images(name: str, pinned: AssetPins, dataset: Dataset, store: AssetStore) -> None:
    """Raise DataError where the data set is not the study's; say what changed, where the earlier one is still here."""
    change = ""
    if dataset.sha256 != pinned.dataset_sha256 and (earlier := _pinned_asset(pinned, store)) is not None:
        change = _changed_classes(earlier, dataset.class_names) or _changed_images(earlier, dataset, store)
    check_images_pin(name, pinned, sha256=dataset.sha256, own_validation=dataset.own_validation, change=change)


def check_unread_images(study: Study, pinned: AssetPins, settings: Settings) -> bool:
    """Return whether the images are known to be the study's from a look at their files, none of which is read.

    Raises DataError where they are known to be others.
    """
    store = AssetStore(settings.paths.assets)
    found, inputs = find_images(study.dataset, settings)
    try:
        asset = store.open("dataset", inputs)
    except AssetMissing:
        asset = None
    earlier = _pinned_asset(pinned, store)
    names = tuple(map(accept_name, found.class_names or ()))
    change = _changed_classes(earlier, names) if earlier is not None and names else ""
    if asset is not None:
        check_images_pin(study.name, pinned, sha256=asset.sha256, own_validation=found.own_validation, change=change)
    elif change:
        raise DataError(
            f"the images here are not those of study {study.name!r}: {change}; change that back, or use a new name"
        )
    return asset is not None


def _pinned_asset(pinned: AssetPins, store: AssetStore) -> Asset | None:
    return next((asset for asset in store.finished() if asset.sha256 == pinned.dataset_sha256), None)


def _changed_classes(earlier: Asset, names: Sequence[str]) -> str:
    """Say in words which classes went and came; empty where the names are the same."""
    before = json.loads(earlier.read("classes.json"))
    gone, new = (
        [repr(name) for name in one if name not in others]
        for one, others in ((before, set(names)), (names, set(before)))
    )
    said = []
    if gone:
        said.append(f"it has the class{'es' * (len(gone) > 1)} {name_some(gone)}")
    if new:
        said.append(f"here {'are' if len(new) > 1 else 'is'} {name_some(new)}{' instead' * bool(gone)}")
    return ", and ".join(said)


def _changed_images(earlier: Asset, dataset: Dataset, store: AssetStore) -> str:
    """Say in words how the number of images changed; that it did not, where it did not."""
    here = next(asset for asset in store.finished() if asset.folder == dataset.folder)
    before, now = (sum(asset.facts["images"].values()) for asset in (earlier, here))
    return (
        f"it has {before:,} images, here are {now:,}"
        if before != now
        else "some of them have other pixels, names or classes"
    )
