"""Table of the teacher's logits for every view of every training image, made once where that saves time."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from igkd_hpo.assets.chunks import Columns, Compute, fill
from igkd_hpo.assets.dataset import Dataset, row_digests
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.assets.teacher import teacher_identity
from igkd_hpo.assets.teachers import Teachers
from igkd_hpo.assets.threads import one_thread
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batches import TrainingData, shown_view
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.streaming import OnDemand
from igkd_hpo.distillation.views import count_views, make_views
from igkd_hpo.errors import AssetMissing
from igkd_hpo.settings import Settings

_SCHEMA = 1
LARGEST_TABLE = 2 << 30  # bytes: every worker of a host shares it in memory, and each GPU holds one
# Of all trial epochs, the share that is left when pruning is done. Making a table costs as many passes of the teacher
# over the images as there are views; online costs one pass in each epoch.
_EPOCHS_LEFT = 0.6
_PIXEL_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}  # float32 pixels between two marks of progress that survive a kill


def wants_table(study: Study, dataset: Dataset) -> bool:
    """Return whether the logits are made beforehand: as the study says, or, for `auto`, where it costs less.

    Never where every trial mixes images: no table holds what a teacher says of mixtures.
    """
    if study.hyperparameters.always_mixes:
        return False
    if study.teacher.logits != "auto" or not study.uses(Role.LOGITS):
        return study.teacher.logits == "cached" and study.uses(Role.LOGITS)
    return outnumber_views(study) and table_bytes(study, dataset) <= LARGEST_TABLE


def outnumber_views(study: Study) -> bool:
    """Return whether the epochs of all trials outnumber the views, so that a table of these saves runs of a teacher."""
    return count_views(study.augmentation) < study.n_trials * study.training.epochs * _EPOCHS_LEFT


def table_bytes(study: Study, dataset: Dataset) -> int:
    """Return how large the table is, or would be, in bytes."""
    return math.prod(_shape(study, dataset)) * np.dtype(np.float16).itemsize


def _shape(study: Study, dataset: Dataset) -> tuple[int, ...]:
    members = study.teacher.n_answers
    answer = (dataset.num_classes,) if members == 1 else (members, dataset.num_classes)
    return (len(dataset.train_images), count_views(study.augmentation), *answer)


def prepare_logits(
    study: Study,
    dataset: Dataset,
    teachers: Teachers,
    settings: Settings,
    store: AssetStore,
    *,
    devices: list[torch.device],
    progress: Progress,
) -> Asset | None:
    """Return the table `logits.npy`, float16 (N, V, K), made if it is missing; None where logits are online.

    Of M members it is (N, V, M, K), because their average depends on a trial's temperature. Column v is the view
    with number v of `distillation.views`. `Teachers.teaching` makes these numbers and those of online teachers:
    on a CPU they are equal, bit for bit, where a trial has one thread as well. More threads cut a tensor elsewhere, and
    some kernels compute the ends of its parts in another way: efficientnet_b0 differed so with three threads, by a last
    bit here and there, which a training amplifies. So each trial records which of the two it had.

    Several processes may share the work, see `fill`; their `devices` are of one kind, the first is this process's.
    Raises AssetError.
    """
    if not wants_table(study, dataset):
        return None
    with store.build("logits", view_inputs(study, dataset, teachers.sha256), progress) as draft:
        if draft.finished is not None:
            return dataset.check_rows(draft.finished)
        shape, views = _shape(study, dataset), count_views(study.augmentation)
        table = draft.table(logits=(np.float16, shape), digests=(np.uint64, shape[:1]))
        with one_thread(devices[0]):
            fill(
                table, _prepare_chunks, title=f"teacher logits of {views} views",
                size=images_at_once(study, dataset, devices[0]),
                study=study, dataset=dataset, teachers=teachers, settings=settings, devices=devices, progress=progress,
            )  # fmt: skip
        return dataset.check_rows(draft.commit({"views": views, "device": devices[0].type}))


def images_at_once(study: Study, dataset: Dataset, device: torch.device) -> int:
    """Return how many images are shown to the teacher in all their views between two marks of progress."""
    shown = 2 if study.augmentation.mixed else 1  # images in each view
    pixels = shown * count_views(study.augmentation) * dataset.shown.train_images[0].numel()
    return max(1, _PIXEL_BYTES[device.type] // (4 * pixels))


def _prepare_chunks(study: Study, dataset: Dataset, teachers: Teachers, device: torch.device) -> Compute:
    online = teachers.teaching(device)
    shown = view_pixels(study, dataset, device)

    def compute(rows: slice) -> Columns:
        clean, labels = dataset.train_images[rows], dataset.train_labels[rows]
        logits = online.logits(*shown(rows)).half().cpu()
        return {
            "logits": logits.reshape(len(clean), *_shape(study, dataset)[1:]).numpy(),
            "digests": row_digests(clean.numpy(), labels.numpy()),
        }

    return compute


def view_pixels(
    study: Study, dataset: Dataset, device: torch.device
) -> Callable[[slice], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return a function that gives rows, numbers and pixels, as `Teaching` takes them, of all views of some images."""
    views = make_views(study.augmentation, dataset.digests).to(device)
    data = TrainingData(
        images=OnDemand(dataset.train_images),
        labels=dataset.train_labels.to(device),
        maps=None,
        validation_images=dataset.validation_images,
        validation_labels=dataset.validation_labels,
        shown_images=OnDemand(dataset.shown.train_images),
    )

    def shown(rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        repeated = torch.arange(rows.start, rows.stop, device=device).repeat_interleave(views.count)
        every = torch.arange(views.count, device=device).repeat(rows.stop - rows.start)
        return repeated, every, shown_view(data, views, repeated, every)

    return shown


def open_logits(study: Study, dataset: Dataset, teacher_sha256: str, store: AssetStore) -> Asset | None:
    """Open the table of these teachers and views; return None where the logits are made online.

    A trial that mixes images does not use it. `auto` takes a table wherever there is one.

    Raises AssetMissing, AssetError.
    """
    if study.teacher.logits == "online" or not study.uses(Role.LOGITS) or study.hyperparameters.always_mixes:
        return None
    try:
        return dataset.check_rows(store.open("logits", view_inputs(study, dataset, teacher_sha256)))
    except AssetMissing:
        if study.teacher.logits == "cached":
            raise
        return None


def view_inputs(study: Study, dataset: Dataset, teacher_sha256: str) -> dict[str, Any]:
    """Return what decides the numbers of a table of every view, by which it is found again."""
    return {
        "schema": _SCHEMA,
        "dataset": dataset.sha256,
        "teacher": teacher_identity(study, teacher_sha256),
        "augmentation": study.augmentation.model_dump(mode="json"),
        **({} if dataset.shown_sha256 is None else {"shown": dataset.shown_sha256}),
    }
