"""Table of the teacher's attention for every view of every training image, made once where that saves time."""

import math
from typing import Any

import numpy as np
import torch

from igkd_hpo.assets.chunks import Columns, Compute, fill
from igkd_hpo.assets.dataset import Dataset, row_digests
from igkd_hpo.assets.logits import LARGEST_TABLE, images_at_once, outnumber_views, view_inputs, view_pixels, wants_table
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.assets.teachers import Teachers
from igkd_hpo.assets.threads import one_thread
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.attention_table import AttentionTable
from igkd_hpo.distillation.features import ask_featured
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.taps import STRIDES, ByStride
from igkd_hpo.distillation.terms.attention import attention_map
from igkd_hpo.distillation.views import count_views
from igkd_hpo.errors import AssetMissing
from igkd_hpo.settings import Settings

_WEIGHT = "attention_weight"


def wants_attention(study: Study, dataset: Dataset) -> bool:
    """Return whether attention is made beforehand: where a table of logits would be, and nothing else needs features.

    Networks of one kind that is known are compared block by block, which no table holds.
    """
    settings = study.hyperparameters
    if study.teacher.logits == "online" or settings.always_mixes or settings.using(Role.FEATURES) != [_WEIGHT]:
        return False
    if study.uses(Role.LOGITS) and not wants_table(study, dataset):
        return False  # the teacher runs for its logits, and gives its features beside them
    of_teacher = find_architecture(study.teacher.architecture)
    if all(find_architecture(name) is of_teacher and of_teacher.taps for name in settings.words("architecture")):
        return False
    worth = study.teacher.logits == "cached" or outnumber_views(study)
    return worth and attention_bytes(study, dataset) <= LARGEST_TABLE


def attention_bytes(study: Study, dataset: Dataset) -> int:
    """Return how large the table of a teacher with maps of every stride is, or would be, in bytes."""
    sizes = dataset.shown.image_size  # a teacher that sees larger images has larger maps
    positions = sum(math.prod(side // stride for side in sizes) for stride in STRIDES)
    return len(dataset.train_images) * count_views(study.augmentation) * positions * np.dtype(np.float32).itemsize


def prepare_attention(
    study: Study,
    dataset: Dataset,
    teachers: Teachers,
    settings: Settings,
    store: AssetStore,
    *,
    devices: list[torch.device],
    progress: Progress,
) -> Asset | None:
    """Return the table `attention.npy`, float32 (N, V, P), made if it is missing; None where it is not wanted.

    Its numbers are those of a teacher in each step, bit for bit on a CPU with one thread; see `prepare_logits`, which
    says what else holds here. A teacher without maps of any stride, which no student can be compared with, has none.
    Raises AssetError.
    """
    if not wants_attention(study, dataset):
        return None
    with store.build("attention", view_inputs(study, dataset, teachers.sha256), progress) as draft:
        if draft.finished is not None:
            return dataset.check_rows(draft.finished)
        if not (sizes := _sizes(dataset, teachers)):
            draft.folder.rmdir()
            return None
        images, views = len(dataset.train_images), count_views(study.augmentation)
        positions = sum(math.prod(size) for size in sizes.values())
        table = draft.table(attention=(np.float32, (images, views, positions)), digests=(np.uint64, (images,)))
        with one_thread(devices[0]):
            fill(
                table, _prepare_chunks, title=f"teacher's attention in {views} views",
                size=images_at_once(study, dataset, devices[0]),
                study=study, dataset=dataset, teachers=teachers, settings=settings, devices=devices, progress=progress,
            )  # fmt: skip
        facts = {"sizes": {str(stride): list(size) for stride, size in sizes.items()}, "device": devices[0].type}
        return dataset.check_rows(draft.commit(facts))


def _sizes(dataset: Dataset, teachers: Teachers) -> dict[int, tuple[int, int]]:
    """Return height and width of the teacher's maps by stride."""
    teacher = teachers.members[0].network
    taps = ByStride(teacher, dataset.image_size)
    pixels = dataset.shown.train_images[:1] / 255
    features, _ = ask_featured(teacher, taps, pixels, tuple(taps.taps), logits=False)
    return {stride: (feature.shape[2], feature.shape[3]) for stride, feature in features.items()}


def _prepare_chunks(study: Study, dataset: Dataset, teachers: Teachers, device: torch.device) -> Compute:
    teacher = teachers.members[0].network.to(device)
    taps = ByStride(teacher, dataset.image_size)
    shown = view_pixels(study, dataset, device)

    def compute(rows: slice) -> Columns:
        clean, labels = dataset.train_images[rows], dataset.train_labels[rows]
        features, _ = ask_featured(teacher, taps, shown(rows)[2], tuple(taps.taps), logits=False)
        maps = torch.cat([attention_map(feature).flatten(1) for feature in features.values()], dim=1).cpu()
        return {
            "attention": maps.reshape(len(clean), -1, maps.shape[1]).numpy(),
            "digests": row_digests(clean.numpy(), labels.numpy()),
        }

    return compute


def open_attention(study: Study, dataset: Dataset, teacher_sha256: str, store: AssetStore) -> Asset | None:
    """Open the table of this teacher and these views; None where there is none, and the teacher is run.

    Raises AssetError.
    """
    if study.teacher.logits == "online" or study.hyperparameters.highest(_WEIGHT) == 0:
        return None
    try:
        return dataset.check_rows(store.open("attention", view_inputs(study, dataset, teacher_sha256)))
    except AssetMissing:
        return None


def attention_table(asset: Asset, study: Study, device: torch.device) -> AttentionTable:
    """Return the table on the device."""
    sizes: dict[str, Any] = asset.facts["sizes"]
    table = torch.from_numpy(asset.array("attention")).to(device)
    return AttentionTable(
        table, {int(stride): tuple(size) for stride, size in sizes.items()}, count_views(study.augmentation)
    )
