"""Access to the test split, the only one. No search, worker or trial may import this module; every use is logged."""

import json
import logging
import os
from datetime import UTC, datetime
from enum import StrEnum

import torch
from torch import Tensor

from igkd_hpo.assets.dataset import dataset_request
from igkd_hpo.assets.files import writing
from igkd_hpo.assets.image_store import open_stored
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.distillation.images import Images
from igkd_hpo.files import make_folder
from igkd_hpo.settings import Settings

_log = logging.getLogger(__name__)


class TestPurpose(StrEnum):
    """Purposes for which the test split may be opened."""

    __test__ = False  # pytest would take the name for a class of tests

    CONFIRM = "confirm"
    LADDER = "ladder"
    TRAIN_TEST = "train --test"
    VERIFY = "verify"
    EXPORT_PARITY = "export parity"
    DOCTOR_DUPLICATES = "doctor's duplicate check"
    BENCHMARK = "benchmark"


def open_test(dataset: DatasetConfig, settings: Settings, *, purpose: TestPurpose) -> tuple[Images, Tensor]:
    """Return the test images, uint8 (N, 3, H, W), and their labels, int64 (N,), of a data set that was prepared.

    Appends a line of JSON to `storage/logs/test-split.log` first: time, purpose, hash of the data set, process.

    Raises:
        AssetMissing: the data set was not prepared here.
        AssetError: the asset is damaged, or the log cannot be written.
    """
    store = AssetStore(settings.paths.assets, in_full=purpose is TestPurpose.DOCTOR_DUPLICATES)
    request = dataset_request(dataset)
    sha256 = store.recall("dataset", request).sha256
    asset = store.recall("test-split", request)
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "purpose": purpose.value,
        "dataset_sha256": sha256,
        "pid": os.getpid(),
    }
    log = settings.paths.test_split_log
    with writing(log):
        make_folder(log.parent)
        with log.open("a", encoding="utf-8") as file:  # one short write: lines of several processes do not mix
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
    _log.info("test split opened: %s", purpose.value, extra={"action": "open_test", **entry})
    return open_stored(asset.folder, "images"), torch.from_numpy(asset.array("labels"))
