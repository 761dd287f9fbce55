"""The images as a study's teacher sees them: read again from their files at its own size, where it has one.

A teacher that asks for 224 pixels and gets 32 that were enlarged again is another, worse teacher: one that was right on
all images was right on half of them.
"""

from dataclasses import replace

import numpy as np
import torch

from igkd_hpo.assets.dataset import Dataset, open_dataset, prepare_dataset
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.config.study import Study
from igkd_hpo.errors import AssetError
from igkd_hpo.settings import Settings
from igkd_hpo.sources import find_source

# Levels of 256 by which an image's mean colour may differ between two sizes: most differ by less than one, and those
# whose edges a cut takes off by more; a row that belongs to another image is found by the mean of all differences.
_SAME_MEAN = 4.0


def prepare_images(study: Study, settings: Settings, store: AssetStore, progress: Progress) -> Dataset:
    """Return the study's images, also at its teacher's size, made where they are missing. Raises as `prepare_dataset`.

    Raises AssetError where the rows of the two do not show the same images.
    """
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    larger = _at_teachers_size(study)
    return dataset if larger is None else _together(dataset, prepare_dataset(larger, settings, store, progress))


def open_images(study: Study, store: AssetStore) -> Dataset:
    """Open the study's images as they were last prepared. Raises AssetMissing, AssetError."""
    dataset = open_dataset(study.dataset, store)
    larger = _at_teachers_size(study)
    return dataset if larger is None else _together(dataset, open_dataset(larger, store))


def _at_teachers_size(study: Study) -> DatasetConfig | None:
    """Return what the teacher's images are read by; None where it sees the student's.

    That is so where these have their own size already, so that the teacher's input is made from all that is there.
    """
    size, own = study.dataset.image_size, study.teacher.input_size
    if own is None or size is None or own == size or not find_source(study.dataset.name).resizes:
        return None
    return study.dataset.model_copy(update={"image_size": own})


def _together(dataset: Dataset, shown: Dataset) -> Dataset:
    same = len(dataset.train_labels) == len(shown.train_labels) and dataset.class_names == shown.class_names
    same = same and torch.equal(dataset.train_labels, shown.train_labels)
    same = same and torch.equal(dataset.validation_labels, shown.validation_labels)
    if not same or _mean_difference(dataset, shown) > _SAME_MEAN:
        raise AssetError(
            f"the images of {shown.folder} are not those of {dataset.folder}, which a student sees; "
            "delete both folders and run again"
        )
    return replace(dataset, shown_to_teacher=shown)


def _mean_difference(dataset: Dataset, shown: Dataset) -> float:
    """Return how far the mean colours of the same images differ on average, in levels, over some of all rows."""
    count = len(dataset.train_labels)
    rows = torch.from_numpy(np.linspace(0, count - 1, min(200, count)).astype(np.int64))
    means = [one.train_images[rows].float().mean(dim=(2, 3)) for one in (dataset, shown)]
    return float((means[0] - means[1]).abs().mean())
