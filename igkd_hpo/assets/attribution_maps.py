"""Integrated-Gradients maps of all training images under the teacher, made once."""

import json
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from igkd_hpo.assets.chunks import Columns, Compute, fill
from igkd_hpo.assets.dataset import Dataset, row_digests
from igkd_hpo.assets.map_plan import MapPlan, explain, make_plan, pixels_seen
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import Asset, AssetStore, Draft
from igkd_hpo.assets.teacher import teacher_identity
from igkd_hpo.assets.teacher_check import check_gradients
from igkd_hpo.assets.teachers import Teachers
from igkd_hpo.assets.threads import fastest_threads, one_thread
from igkd_hpo.config.resolution import recorded_execution
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.errors import AssetMissing
from igkd_hpo.settings import Settings
from igkd_hpo.words import percent

_SCHEMA = 1
# Images between two marks of progress that survive a kill; on a CPU, where one process makes the first of them with one
# thread before others join in, for images of so many pixels, and fewer of larger ones.
_CHUNK = {"cpu": 128, "cuda": 1024}
_SMALL = 32 * 32
_PLAN = "plan.json"
_WORST_MEDIAN = 0.3


def prepare_maps(
    study: Study,
    dataset: Dataset,
    teachers: Teachers,
    settings: Settings,
    store: AssetStore,
    *,
    devices: list[torch.device],
    progress: Progress,
) -> Asset | None:
    """Return the maps, made if they are missing; None where no trial can use them.

    Of several members they explain the mean of the logits; of folds, the logits of the one that did not see the image.

    `maps.npy`: float16 (N, H, W), each map divided by its own maximum; `scale.npy`: float32 (N,), that maximum;
    `completeness.npy`: float32 (N,), the error of each map's sum, see `integrated_gradients`. Facts: the plan, see
    `MapPlan`, and the median and the 95th percentile of the completeness. Raises TeacherError, see `check_gradients`.

    Several processes may share the work, see `fill`; their `devices` are of one kind, the first is this process's.
    Raises AssetError.
    """
    if not study.uses(Role.MAPS):
        return None
    with suppress(AssetMissing):
        return _open(study, dataset, teachers.sha256, store)
    with store.build("maps", _inputs(study, dataset, teachers.sha256), progress) as draft:
        if draft.finished is not None:
            return dataset.check_rows(draft.finished)
        images, (height, width) = len(dataset.train_images), dataset.image_size
        plan = _plan(draft, study, dataset, teachers, device=devices[0], progress=progress)
        table = draft.table(
            maps=(np.float16, (images, height, width)),
            scale=(np.float32, (images,)),
            completeness=(np.float32, (images,)),
            digests=(np.uint64, (images,)),
        )
        size = _CHUNK[devices[0].type]
        if devices[0].type == "cpu":
            size = max(1, size // max(1, pixels_seen(study, dataset) // _SMALL))
        with one_thread(devices[0]):
            fill(
                table, partial(_prepare_chunks, plan), title="attribution maps", size=size,
                study=study, dataset=dataset, teachers=teachers, settings=settings, devices=devices, progress=progress,
            )  # fmt: skip
        errors = table.column("completeness")
        facts = {
            **asdict(plan),
            "target": study.attribution.target,
            "completeness": {"median": float(np.median(errors)), "p95": float(np.quantile(errors, 0.95))},
        }
        return dataset.check_rows(draft.commit(facts, drop=(_PLAN,)))


def _plan(
    draft: Draft, study: Study, dataset: Dataset, teachers: Teachers, *, device: torch.device, progress: Progress
) -> MapPlan:
    """Return the plan of an interrupted maker, so that all rows are made alike, that of an exported file, or a new one.

    On a GPU only a new one fits its memory; there no two runs have equal bits anyway.
    """
    kept, recorded = draft.read(_PLAN), recorded_execution(study, "cpu") if device.type == "cpu" else None
    if kept is not None:
        return MapPlan(**json.loads(kept))
    if recorded is not None and recorded.n_steps == study.attribution.n_steps and recorded.map_points is not None:
        return MapPlan(n_steps=recorded.n_steps, agreement=None, points=recorded.map_points)
    networks = teachers.networks(device)
    for network in networks:  # which a study without maps may have taken in
        check_gradients(network, dataset.shown, device=device)
    with fastest_threads(dataset.shown.image_size, device):  # what is chosen is kept, whatever bits led to it
        plan = make_plan(study, dataset, networks[0], device=device, progress=progress)
    if plan.agreement == 1:
        progress.note(f"maps of {plan.n_steps} steps (attribution.n_steps), the most: those of fewer still differ")
    elif plan.agreement is not None:
        progress.note(
            f"maps of {plan.n_steps} steps (attribution.n_steps), which order the pixels as those of 64 do "
            f"(rank correlation {plan.agreement:.3f})"
        )
    draft.write(_PLAN, json.dumps(asdict(plan)).encode())
    return plan


def _prepare_chunks(plan: MapPlan, study: Study, dataset: Dataset, teachers: Teachers, device: torch.device) -> Compute:
    networks = teachers.networks(device)

    def compute(rows: slice) -> Columns:
        images, labels = dataset.train_images[rows], dataset.train_labels[rows]
        make, numbers = partial(explain, study, dataset, plan=plan, device=device), torch.arange(rows.start, rows.stop)
        if teachers.folds is None:
            maps, completeness = make(networks, numbers)
        else:
            maps, completeness = torch.empty(len(images), *images.shape[2:]), torch.empty(len(images))
            for member, network in enumerate(networks):
                if len(unseen := torch.nonzero(teachers.folds[rows] == member)[:, 0]):
                    maps[unseen], completeness[unseen] = make([network], numbers[unseen])
        scale = maps.amax(dim=(1, 2))
        relative = maps / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None, None]
        return {
            "maps": relative.half().numpy(),
            "scale": scale.numpy(),
            "completeness": completeness.numpy(),
            "digests": row_digests(images.numpy(), labels.numpy()),
        }

    return compute


def warn_coarse(median: float, *, n_steps: int) -> str | None:
    """Return a warning when the median error of the maps' completeness, a fraction, is above 0.3."""
    if median <= _WORST_MEDIAN:
        return None
    return (
        f"half of the attribution maps miss their sum by more than {percent(median, 0)}; "
        f"raise attribution.n_steps ({n_steps} now)"
    )


def open_maps(study: Study, dataset: Dataset, teacher_sha256: str, store: AssetStore) -> Asset | None:
    """Open the maps of these teachers; return None where no trial can use them. Raises AssetMissing, AssetError."""
    if not study.uses(Role.MAPS):
        return None
    return _open(study, dataset, teacher_sha256, store)


def _open(study: Study, dataset: Dataset, teacher_sha256: str, store: AssetStore) -> Asset:
    """Open the maps, or those that `auto` made with as many steps: an exported file names the number."""
    try:
        asset = store.open("maps", _inputs(study, dataset, teacher_sha256))
    except AssetMissing:
        chosen = study.attribution.model_copy(update={"n_steps": "auto"})
        other = study.model_copy(update={"attribution": chosen})
        asset = store.open("maps", _inputs(other, dataset, teacher_sha256))
        if asset.facts["n_steps"] != study.attribution.n_steps:
            raise
    return dataset.check_rows(asset)


def _inputs(study: Study, dataset: Dataset, teacher_sha256: str) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "dataset": dataset.sha256,
        "teacher": teacher_identity(study, teacher_sha256),
        "attribution": study.attribution.model_dump(mode="json"),
        **({} if dataset.shown_sha256 is None else {"shown": dataset.shown_sha256}),
    }
