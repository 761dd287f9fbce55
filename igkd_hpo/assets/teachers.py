"""All of a study's teachers: one, several whose probabilities are averaged, or one for each fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.folds import assign_folds, folds_hash
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore, content_hash
from igkd_hpo.assets.teacher import Teacher, open_teacher, prepare_teacher, teacher_asset, teacher_identity
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batch_norm import fold_batch_norm
from igkd_hpo.distillation.ensemble import average_members
from igkd_hpo.distillation.evaluation import judge, predict
from igkd_hpo.distillation.images import Images
from igkd_hpo.distillation.metrics import METRICS, measured
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.teaching import MemberLogits, OnlineLogits, OutOfFoldLogits, Teaching
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """A study's teachers, each of the same architecture.

    Args:
        members: one or more.
        folds: int64 (N,), for each training image the number of the member that did not see it, which alone is asked
            about it; None where every member is asked about every image.
        sha256: see `combined_hash`.
        image_size: height and width of the images that they see, in pixels.
    """

    members: tuple[Teacher, ...]
    folds: Tensor | None
    sha256: str
    image_size: tuple[int, int]

    def networks(self, device: torch.device) -> list[Network]:
        """Return networks that answer as the members do, on the device, for logits and maps.

        Their layers may give other features: a tap can stand between a convolution and its normalisation.
        """
        return [network.to(device) for network in self._folded]

    @cached_property
    def _folded(self) -> list[Network]:
        noise = torch.rand(1, 3, *self.image_size, generator=torch.Generator().manual_seed(0))
        return [fold_batch_norm(member.network.cpu(), noise) for member in self.members]

    def teaching(self, device: torch.device) -> Teaching:
        """Return their logits, made when they are asked for."""
        networks = self.networks(device)
        if self.folds is not None:
            return OutOfFoldLogits(networks, self.folds.to(device))
        return OnlineLogits(networks[0]) if len(networks) == 1 else MemberLogits(networks)


class TeacherFacts(NamedTuple):
    """Facts about a study's teachers: `combined_hash` and, of the first, its parameters and its training's threads.

    `threads` is None where it was given, trained on a GPU, or trained before that was noted.
    """

    sha256: str
    parameters: int
    threads: int | None


def combined_hash(weights: Sequence[str], folds: Tensor | None) -> str:
    """Hash what a study pins: all members' weights in their order, and their folds; of one teacher, its weights."""
    if len(weights) == 1:
        return weights[0]
    return content_hash({"members": list(weights), "folds": None if folds is None else folds_hash(folds)})


def prepare_teachers(
    study: Study, dataset: Dataset, settings: Settings, store: AssetStore, *, device: torch.device, progress: Progress
) -> Teachers:
    """Return the study's teachers, made one after the other where they are missing. Raises as `prepare_teacher`."""
    members = [
        prepare_teacher(study, dataset, settings, store, member=number, device=device, progress=progress)
        for number in range(study.teacher.n_networks)
    ]
    return _combine(study, dataset, members)


def open_teachers(study: Study, dataset: Dataset, settings: Settings, store: AssetStore) -> Teachers:
    """Open the teachers as last prepared. Raises AssetMissing, AssetError, and UsageError (see `build_body`)."""
    numbers = range(study.teacher.n_networks)
    members = [open_teacher(study, dataset, settings, store, member=number) for number in numbers]
    return _combine(study, dataset, members)


def open_teacher_facts(study: Study, dataset: Dataset, store: AssetStore) -> TeacherFacts:
    """Return what is known of the teachers without building a network. Raises AssetMissing, AssetError."""
    assets = [teacher_asset(study, dataset, store, member=number) for number in range(study.teacher.n_networks)]
    return TeacherFacts(
        sha256=combined_hash([str(asset.facts["sha256"]) for asset in assets], _folds(study, dataset)),
        parameters=int(assets[0].facts["parameters"]),
        threads=assets[0].facts.get("threads"),
    )


def validation_accuracy(
    study: Study, dataset: Dataset, teachers: Teachers, store: AssetStore, *, device: torch.device, progress: Progress
) -> float:
    """Return the study's metric of the teachers on the validation images; measured once. Raises AssetError.

    Of several it is that of their averaged probabilities at temperature 1. Of folds it is the mean of the members' own
    accuracies: a student hears only one of them about an image, never their average.
    """
    own = [member.validation_accuracy for member in teachers.members]
    if teachers.folds is not None or len(own) == 1:
        return sum(own) / len(own)
    inputs = {"schema": _SCHEMA, "dataset": dataset.sha256, "teacher": teacher_identity(study, teachers.sha256)}
    if study.metric != "accuracy":
        inputs["metric"] = study.metric
    with store.build("teachers", inputs, progress) as draft:
        asset = draft.finished
        if asset is None:
            progress.note(f"measuring the {METRICS[study.metric]} of the {len(own)} teachers together")
            answers = average_answers(teachers.networks(device), dataset.validation_images, device=device)
            together = judge(answers, dataset.validation_labels, study.metric)
            images = counted(len(dataset.validation_images), "validation image")
            progress.note(f"the {len(own)} teachers together: {measured(together, study.metric)} on {images}")
            asset = draft.commit({"validation_accuracy": together})
        return float(asset.facts["validation_accuracy"])


def average_answers(networks: Sequence[Network], images: Images, *, device: torch.device) -> Tensor:
    """Return logits (N, K), on the CPU, of the networks' averaged probabilities at temperature 1; of one, its own."""
    answers = [predict(network, images, device=device) for network in networks]
    return answers[0] if len(answers) == 1 else average_members(torch.stack(answers, dim=1), 1.0)


def _combine(study: Study, dataset: Dataset, members: Sequence[Teacher]) -> Teachers:
    folds = _folds(study, dataset)
    sha256 = combined_hash([member.sha256 for member in members], folds)
    return Teachers(members=tuple(members), folds=folds, sha256=sha256, image_size=dataset.image_size)


def _folds(study: Study, dataset: Dataset) -> Tensor | None:
    return assign_folds(dataset, study.teacher.folds) if study.teacher.folds else None
