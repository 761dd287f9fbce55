"""Gallery of a report: training images with the teacher's map, the student's own, and the overlay, inside the page."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from igkd_hpo.errors import AssetError, DataError, UsageError
from igkd_hpo.report.data_uri import image_uri, map_uri
from igkd_hpo.search.best import BestTrial
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network
    from igkd_hpo.trial.build import OverlayExamples

N_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class GalleryRow:
    """One image, its maps and its overlay, as data URIs of PNGs."""

    name: str
    image: str
    teacher_map: str
    student_map: str | None
    overlay: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Rows of pictures, and in words why there are none, or none with the student's map.

    Args:
        strength, mode: of the overlays that are shown.
        used: whether the student saw any in its training.
    """

    rows: tuple[GalleryRow, ...] = ()
    missing: str | None = None
    student_missing: str | None = None
    strength: float = 0.5
    mode: str = "blend"
    used: bool = True


def make_gallery(study: SearchStudy, trained: tuple[SearchStudy, BestTrial] | None, settings: Settings) -> Gallery:
    """Make a gallery of the training split, one class after the other; the test split is not opened.

    Args:
        study: whose images and teacher.
        trained: the trial whose student is explained, and the study that trained it; None where none completed.
    """
    from igkd_hpo.trial.build import overlay_examples

    assets, reason = assets_here(study, settings)
    if assets is None:
        return Gallery(missing=reason)
    values = trained[1].hyperparameters if trained else {}
    strength, mode = float(values.get("overlay_strength", 0.5)), str(values.get("overlay_mode", "blend"))
    examples = overlay_examples(assets, strength=strength, mode=mode, count=N_IMAGES)
    if examples is None:
        return Gallery(missing="This study uses no overlays, so the teacher's maps were never made.")
    student_maps, student_missing = None, None
    if trained is None:
        student_missing = "No trial completed, so there is no student to explain."
    else:
        source, best = trained
        kept = kept_network(
            source.config,
            assets,
            settings,
            folder=source.folder,
            number=best.number,
            hyperparameters=best.hyperparameters,
            seed=best.seed,
        )
        if kept is not None:
            student_maps = _student_maps(kept[0], examples, assets)
        else:
            host = source.trials()[best.number].user_attrs.get("host")
            student_missing = (
                f"The student's maps are missing: the weights of trial {best.number} of {source.name} are not in "
                f"storage/checkpoints on this machine{f' (it was trained on {host})' if host else ''}."
            )
    rows = tuple(
        GalleryRow(
            name=name,
            image=image_uri(examples.images[i]),
            teacher_map=map_uri(examples.maps[i]),
            student_map=None if student_maps is None else map_uri(student_maps[i]),
            overlay=image_uri(examples.overlays[i]),
        )
        for i, name in enumerate(examples.names)
    )
    used = float(values.get("overlay_probability", 1)) > 0
    return Gallery(rows=rows, student_missing=student_missing, strength=strength, mode=mode, used=used)


def assets_here(study: SearchStudy, settings: Settings) -> "tuple[Assets | None, str]":
    """Open the assets of a study; None, and a sentence that says why, where this machine does not have them."""
    from igkd_hpo.assets.study_assets import open_assets

    try:
        assets = open_assets(study.config, settings)
    except (AssetError, DataError, UsageError) as error:
        return None, f"The images and maps of this study are not on this machine: {error}."
    pins, hashes = study.read().pins, (assets.dataset.sha256, assets.teacher_sha256)
    if pins is not None and (pins.dataset_sha256, pins.teacher_sha256) != hashes:
        return None, "The images or the teacher on this machine are not those of the study."
    return assets, ""


def _student_maps(network: "Network", examples: "OverlayExamples", assets: "Assets") -> npt.NDArray[Any]:
    """Return maps of the student, made and stretched as the teacher's are; (N, H, W) in [0, 1]."""
    import torch

    from igkd_hpo.distillation.attribution import integrated_gradients
    from igkd_hpo.distillation.evaluation import predict
    from igkd_hpo.distillation.models import to_pixels
    from igkd_hpo.distillation.overlay import normalize_maps

    assert assets.maps is not None, "there are examples of maps"
    images = torch.from_numpy(examples.images)
    targets = torch.tensor([assets.dataset.class_names.index(name) for name in examples.names])
    if assets.study.attribution.target == "prediction":
        targets = predict(network, images, device=torch.device("cpu")).argmax(dim=1)
    maps = [
        integrated_gradients(
            network,
            to_pixels(images[i : i + 1]),
            targets[i : i + 1],
            baseline=torch.tensor(assets.dataset.mean),
            n_steps=int(assets.maps.facts["n_steps"]),
        )[0]
        for i in range(len(images))
    ]
    return normalize_maps(torch.cat(maps), torch.ones(len(images))).numpy()
