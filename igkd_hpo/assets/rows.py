"""What keeps row i of every derived array at training image i: the digests of the images it was made from."""

import numpy as np

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.store import Asset
from igkd_hpo.errors import AssetError


def check_rows(asset: Asset, dataset: Dataset) -> Asset:
    """The asset, if its `digests` are those of the data set's training images, in their order. Raises AssetError."""
    if not np.array_equal(asset.array("digests"), dataset.train_digests):
        raise AssetError(
            f"the rows of {asset.folder} do not belong to the training images of {dataset.folder}; "
            "delete the first folder and run again"
        )
    return asset
