"""All assets of a study, which it needs before its first trial: made by `prepare_assets`, read by `open_assets`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from igkd_hpo.assets.attention import attention_table, open_attention, prepare_attention
from igkd_hpo.assets.attribution_maps import open_maps, prepare_maps, warn_coarse
from igkd_hpo.assets.checkpoint_file import find_format
from igkd_hpo.assets.chunks import devices_for
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.logits import open_logits, prepare_logits
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.shown import open_images, prepare_images
from igkd_hpo.assets.store import Asset, AssetStore
from igkd_hpo.assets.study_images import check_images
from igkd_hpo.assets.teachers import Teachers, open_teacher_facts, open_teachers, prepare_teachers, validation_accuracy
from igkd_hpo.assets.weights import Weights, combined_hash, open_weights, prepare_weights, students_weights
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request
from igkd_hpo.distillation.attention_table import AttentionTable
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.teaching import CachedLogits, Teaching
from igkd_hpo.distillation.views import count_views
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings


@dataclass(frozen=True, kw_only=True)
class AssetSummary:
    """Summary of a study's assets, as plain JSON values.

    Args:
        weights_sha256: of what students begin with; None where they begin at random.
        shown_sha256: of the images at the teacher's own size; None where it sees the student's.
        teacher_accuracy: on the validation images, a fraction; of several teachers see `validation_accuracy`.
        member_accuracies: of each teacher by itself.
        teacher_parameters: of one teacher, the first.
        own_validation: whether the images brought their validation split.
        image_size: height and width, in pixels.
        logits: `cached` in a table, or computed `online`.
        n_steps: of the attribution maps; None where there are none.
        completeness: median error of the maps, a fraction; None where there are none.
        seconds: of the preparation.
        folders: of the assets.
    """

    dataset_sha256: str
    teacher_sha256: str
    weights_sha256: str | None
    shown_sha256: str | None
    teacher_accuracy: float
    member_accuracies: list[float]
    teacher_parameters: int
    n_train: int
    n_validation: int
    own_validation: bool
    num_classes: int
    image_size: tuple[int, int]
    logits: Literal["cached", "online"]
    n_steps: int | None
    completeness: float | None
    warnings: list[str]
    seconds: float
    folders: list[str]

    @property
    def pins(self) -> AssetPins:
        """Return what all hosts of the study must have."""
        return AssetPins(
            dataset_sha256=self.dataset_sha256,
            teacher_sha256=self.teacher_sha256,
            own_validation=self.own_validation,
            weights_sha256=self.weights_sha256,
            shown_sha256=self.shown_sha256,
            teacher_accuracy=self.teacher_accuracy,
        )


def prepare_assets(
    study: Study, settings: Settings, *, device: str, progress: Progress, pinned: AssetPins | None = None
) -> AssetSummary:
    """Make the study's assets that are missing, and check those that are there.

    Args:
        device: `cpu`, `cuda:<n>`, or `cuda`: the first GPU trains teachers, and all share logits and maps.
        pinned: content that an existing study has; other images are refused before anything is made of them.

    Raises:
        DataError, UsageError, TeacherError: the data or the teacher cannot be used, or are not what is pinned.
        AssetError: an asset is damaged or cannot be written.
    """
    start = time.perf_counter()
    for path in study.teacher.checkpoints:
        find_format(settings.data_path(path))  # before images are decoded for what cannot be a checkpoint
    store = AssetStore(settings.paths.assets)
    devices = devices_for(torch.device(device))
    dataset = prepare_images(study, settings, store, progress)
    if pinned is not None:
        check_images(study.name, pinned, dataset, store)
    _check_cutout(study, dataset.image_size)
    weights = {
        name: prepare_weights(
            student_request(name, dataset, settings), file, settings, store, progress, key="student.weights"
        )
        for name, file in students_weights(study).items()
    }
    teachers = prepare_teachers(study, dataset.shown, settings, store, device=devices[0], progress=progress)
    accuracy = validation_accuracy(study, dataset.shown, teachers, store, device=devices[0], progress=progress)
    logits = prepare_logits(study, dataset, teachers, settings, store, devices=devices, progress=progress)
    attention = prepare_attention(study, dataset, teachers, settings, store, devices=devices, progress=progress)
    maps = prepare_maps(study, dataset, teachers, settings, store, devices=devices, progress=progress)
    n_steps = None if maps is None else int(maps.facts["n_steps"])
    completeness = None if maps is None else float(maps.facts["completeness"]["median"])
    warnings = list(dataset.warnings)
    if n_steps and completeness and (coarse := warn_coarse(completeness, n_steps=n_steps)) is not None:
        progress.warn(coarse)
        warnings.append(coarse)
    folders = [dataset.folder, *(member.folder for member in teachers.members)]
    folders += [asset.folder for asset in (logits, attention, maps) if asset is not None]
    folders += [one.asset.folder for one in weights.values()]
    return AssetSummary(
        dataset_sha256=dataset.sha256,
        teacher_sha256=teachers.sha256,
        weights_sha256=combined_hash(weights),
        shown_sha256=dataset.shown_sha256,
        teacher_accuracy=accuracy,
        member_accuracies=[member.validation_accuracy for member in teachers.members],
        teacher_parameters=teachers.members[0].parameters,
        n_train=len(dataset.train_images),
        n_validation=len(dataset.validation_images),
        own_validation=dataset.own_validation,
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
        logits="online" if logits is None else "cached",
        n_steps=n_steps,
        completeness=completeness,
        warnings=warnings,
        seconds=time.perf_counter() - start,
        folders=[str(folder) for folder in folders],
    )


def student_request(name: str, dataset: Dataset, settings: Settings) -> Request:
    """Return what a student's network of this name is asked for."""
    return Request(
        name=name,
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
        allow_import=settings.allow_import,
    )


def _check_cutout(study: Study, image_size: tuple[int, int]) -> None:
    """Raise UsageError where the square that a trial cuts out does not fit into the images."""
    largest = study.hyperparameters.highest("cutout")
    if largest > min(image_size):
        raise UsageError(
            f"hyperparameters.cutout goes to {largest} pixels, and the images of {study.dataset.name} have "
            f"{min(image_size)}; lower it"
        )


@dataclass(frozen=True)
class Assets:
    """A study's assets, opened; arrays are memory-mapped, and a teacher's network is built only when it is asked for.

    Args:
        teacher_sha256: of the teachers' weights, see `combined_hash`.
        teacher_parameters: of one teacher, the first.
        teacher_threads: of its training, see `TeacherFacts`.
        weights: that students can begin with, by the name of their network.
    """

    study: Study
    settings: Settings
    dataset: Dataset
    teacher_sha256: str
    teacher_parameters: int
    teacher_threads: int | None
    logits: Asset | None
    attention: Asset | None
    maps: Asset | None
    weights: Mapping[str, Weights]

    @property
    def pins(self) -> AssetPins:
        """Return what all hosts of the study must have."""
        return AssetPins(
            dataset_sha256=self.dataset.sha256,
            teacher_sha256=self.teacher_sha256,
            own_validation=self.dataset.own_validation,
            weights_sha256=combined_hash(self.weights),
            shown_sha256=self.dataset.shown_sha256,
        )

    @cached_property
    def teachers(self) -> Teachers:
        """The teachers, on the CPU. Raises UsageError where their code is not allowed here."""
        return open_teachers(self.study, self.dataset.shown, self.settings, AssetStore(self.settings.paths.assets))

    def training_data(self, *, shown: bool = False) -> TrainingData:
        """Return images and maps where they are kept; with `shown` also the images that a teacher in each step sees."""
        apart = self.dataset.shown_to_teacher if shown else None
        return TrainingData(
            images=self.dataset.train_images,
            labels=self.dataset.train_labels,
            maps=None if self.maps is None else torch.from_numpy(self.maps.array("maps")),
            validation_images=self.dataset.validation_images,
            validation_labels=self.dataset.validation_labels,
            digests=self.dataset.digests,
            shown_images=None if apart is None else apart.train_images,
        )

    def teaching(self, device: torch.device, *, mixed: bool = False) -> Teaching:
        """Return the source of the teacher's logits: the table, or the teachers themselves, on the device.

        `mixed`: about mixtures of images too, which are in no table.
        """
        if self.logits is None or mixed:
            return self.teachers.teaching(device)
        table = torch.from_numpy(self.logits.array("logits")).to(device)
        return CachedLogits(table, count_views(self.study.augmentation))

    def attention_table(self, device: torch.device, *, mixed: bool = False) -> AttentionTable | None:
        """Return the table of the teacher's attention on the device; None where there is none, or of `mixed` images."""
        return None if self.attention is None or mixed else attention_table(self.attention, self.study, device)


def open_assets(study: Study, settings: Settings) -> Assets:
    """Open what `prepare_assets` made, checksums and the order of rows verified, without images or checkpoints.

    Raises:
        AssetMissing: the study was not prepared here.
        AssetError: an asset is damaged; the message names the folder to delete.
    """
    store = AssetStore(settings.paths.assets)
    dataset = open_images(study, store)
    teacher = open_teacher_facts(study, dataset.shown, store)
    return Assets(
        study=study,
        settings=settings,
        dataset=dataset,
        teacher_sha256=teacher.sha256,
        teacher_parameters=teacher.parameters,
        teacher_threads=teacher.threads,
        logits=open_logits(study, dataset, teacher.sha256, store),
        attention=open_attention(study, dataset, teacher.sha256, store),
        maps=open_maps(study, dataset, teacher.sha256, store),
        weights={
            name: open_weights(student_request(name, dataset, settings), file, store)
            for name, file in students_weights(study).items()
        },
    )
