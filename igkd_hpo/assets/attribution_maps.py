"""The Integrated-Gradients map of every training image under the teacher, made once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igkd_hpo.assets.dataset import Dataset, row_digests
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.rows import check_rows
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.assets.teacher import teacher_identity
from igkd_hpo.assets.teachers import Teachers, average_answers
from igkd_hpo.config.study import CONTROLS_WITH_MAPS, Study
from igkd_hpo.distillation.models import Network, to_pixels

_SCHEMA = 1
# Pixels that go through the network at once, with gradients: 64 or 256 points of 32x32. On a CPU, 4 images at 16 steps
# took 0.19 s each and 0.7 GB, 16 images 0.35 s and 5.8 GB (MobileNet-V2 of full width, one core).
_PIXELS_AT_ONCE = {"cpu": 1 << 16, "cuda": 1 << 18}
_CHUNK = 512  # images between two marks of progress that survive a kill
_WORST_MEDIAN = 0.3


def uses_maps(study: Study) -> bool:
    """Whether any trial of the study can have an overlay or match attributions."""
    settings = study.hyperparameters
    wanted = settings.highest("overlay_probability") > 0 or settings.highest("attribution_weight") > 0
    return wanted or not CONTROLS_WITH_MAPS.isdisjoint(study.controls)


def prepare_maps(
    study: Study, dataset: Dataset, teachers: Teachers, store: AssetStore, *, device: torch.device, progress: Progress
) -> Asset | None:
    """The maps, made if they are not there yet; None where no trial can use them.

    Of several members they explain the mean of the logits; of folds, the logits of the one that did not see the image.

    `maps.npy`: float16 (N, H, W), each map divided by its own maximum; `scale.npy`: float32 (N,), that maximum;
    `completeness.npy`: float32 (N,), how far each is from adding up, see `integrated_gradients`. Facts: the median and
    the 95th percentile of the completeness. Raises AssetError.
    """
    if not uses_maps(study):
        return None
    with store.build("maps", _inputs(study, dataset, teachers.sha256), progress) as draft:
        if draft.finished is not None:
            return check_rows(draft.finished, dataset)
        images, (height, width) = len(dataset.train_images), dataset.image_size
        table = draft.table(
            maps=(np.float16, (images, height, width)),
            scale=(np.float32, (images,)),
            completeness=(np.float32, (images,)),
            digests=(np.uint64, (images,)),
        )
        networks = teachers.networks(device)
        with progress.task("attribution maps", images) as advance:
            advance(table.rows_done)
            while table.rows_done < images:
                rows = slice(table.rows_done, table.rows_done + _CHUNK)
                clean, labels = dataset.train_images[rows], dataset.train_labels[rows]
                folds = None if teachers.folds is None else teachers.folds[rows]
                maps, completeness = _attribute(study, dataset, networks, clean, labels, folds, device=device)
                scale = maps.amax(dim=(1, 2))
                relative = maps / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None, None]
                table.append(
                    maps=relative.half().numpy(),
                    scale=scale.numpy(),
                    completeness=completeness.numpy(),
                    digests=row_digests(clean.numpy(), labels.numpy()),
                )
                advance(len(clean))
        errors = table.column("completeness")
        facts = {
            "n_steps": study.attribution.n_steps,
            "target": study.attribution.target,
            "completeness": {"median": float(np.median(errors)), "p95": float(np.quantile(errors, 0.95))},
        }
        return check_rows(draft.commit(facts), dataset)


def _attribute(
    study: Study,
    dataset: Dataset,
    networks: Sequence[Network],
    images: Tensor,
    labels: Tensor,
    folds: Tensor | None,
    *,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    if folds is None:
        return _explain(study, dataset, networks, images, labels, device=device)
    maps, completeness = torch.empty(len(images), *images.shape[2:]), torch.empty(len(images))
    for number, network in enumerate(networks):
        if len(mine := torch.nonzero(folds == number)[:, 0]):
            explained = _explain(study, dataset, [network], images[mine], labels[mine], device=device)
            maps[mine], completeness[mine] = explained
    return maps, completeness


def _explain(
    study: Study,
    dataset: Dataset,
    networks: Sequence[Network],
    images: Tensor,
    labels: Tensor,
    *,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    from igkd_hpo.distillation.attribution import integrated_gradients  # captum: only the making of maps needs it

    if study.attribution.target == "prediction":
        labels = average_answers(networks, images, device=device).argmax(dim=1)
    maps, errors = integrated_gradients(
        networks,
        to_pixels(images.to(device)),
        labels.to(device),
        baseline=torch.tensor(dataset.mean),
        n_steps=study.attribution.n_steps,
        points=points_at_once(study, dataset, device),
    )
    return maps.cpu(), errors.float().cpu()


def points_at_once(study: Study, dataset: Dataset, device: torch.device) -> int:
    """How many images of the size that the teacher sees go through it at once, with gradients."""
    height, width = dataset.image_size
    return max(1, _PIXELS_AT_ONCE[device.type] // max(height * width, (study.teacher.input_size or 0) ** 2))


def completeness_warning(asset: Asset) -> str | None:
    """What to say when the maps are too coarse, see `coarse_maps`."""
    return coarse_maps(float(asset.facts["completeness"]["median"]), n_steps=int(asset.facts["n_steps"]))


def coarse_maps(median: float, *, n_steps: int) -> str | None:
    """What to say when the median error of the maps' completeness, a fraction, is above 0.3."""
    if median <= _WORST_MEDIAN:
        return None
    return (
        f"half of the attribution maps miss their sum by more than {median:.0%}; "
        f"raise attribution.n_steps ({n_steps} now)"
    )


def open_maps(study: Study, dataset: Dataset, teacher_sha256: str, store: AssetStore) -> Asset | None:
    """The maps that were made for these teachers; None where no trial can use them. Raises AssetMissing, AssetError."""
    if not uses_maps(study):
        return None
    return check_rows(store.open("maps", _inputs(study, dataset, teacher_sha256)), dataset)


def _inputs(study: Study, dataset: Dataset, teacher_sha256: str) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "dataset": dataset.sha256,
        "teacher": teacher_identity(study, teacher_sha256),
        "attribution": study.attribution.model_dump(mode="json"),
    }
