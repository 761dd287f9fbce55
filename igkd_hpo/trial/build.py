"""Building of a trial from hyperparameters and a study's assets until it is ready to train."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt
import torch

from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.assets.teacher_network import normalization, torch_format
from igkd_hpo.assets.weights import begin_with
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.resolution import training_on
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.blocks import copy_prefix
from igkd_hpo.distillation.device import processor
from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.overlay import normalize_maps, overlay
from igkd_hpo.distillation.pointwise import name_pointwise
from igkd_hpo.distillation.recipe import Recipe, knobs_of, make_recipe
from igkd_hpo.distillation.reparameterization import learned_in_place_of, reparameterize
from igkd_hpo.distillation.training import Training
from igkd_hpo.trial.step import memory_format
from igkd_hpo.trial.student import make_body


@dataclass(frozen=True, kw_only=True)
class PreparedTrial:
    """A training that is ready to start, and the settings that decide its last bits."""

    training: Training
    execution: Execution


def make_execution(study: Study, architecture: str, assets: Assets, device: torch.device) -> Execution:
    """Return the settings with which this process would train such a student, and those its assets came from."""
    training, maps = training_on(study, device.type), assets.maps
    precision = resolve_precision(training.precision, device)
    layout = memory_format(study, architecture, assets.dataset, assets.settings, device)
    return Execution.model_validate(
        {
            "device": device.type,
            "threads": torch.get_num_threads(),
            "precision": precision,
            "memory_format": layout,
            "compile": resolve_compile(training.compile, device, precision),
            "torch": torch.__version__,
            "processor": processor(device),
            "logits": "online" if assets.logits is None else "cached",
            "n_steps": None if maps is None else maps.facts["n_steps"],
            "map_points": None if maps is None else maps.facts.get("points"),
            "map_precision": None if maps is None else maps.facts.get("precision"),
            "pointwise": name_pointwise(device, channels_last=layout == "channels_last"),
            "teacher_threads": assets.teacher_threads,
        }
    )


class Student(NamedTuple):
    """A student before its first step, and the names of its body's tensors that are pretrained."""

    network: Network
    pretrained: frozenset[str]


def make_student(study: Study, hyperparameters: Mapping[str, Value], assets: Assets, *, seed: int) -> Student:
    """Build a student with fresh weights, drawn from `seed`, but for those that `init` takes from elsewhere."""
    dataset, name = assets.dataset, str(hyperparameters["architecture"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = make_body(hyperparameters, dataset.num_classes, dataset.image_size, assets.settings.allow_import)
        taken: frozenset[str] = frozenset()
        of_weights = None
        if hyperparameters["init"] == "pretrained":
            weights = assets.weights[name]
            taken = begin_with(body, weights, cut=bool(knobs_of(hyperparameters).get("stages_removed")))
            of_weights = weights.statistics
    mean, std = normalization(study.student, (dataset.mean, dataset.std), of_weights)
    student = Network(body, mean, std)
    layout = memory_format(study, name, dataset, assets.settings, torch.device("cpu"))  # unless it is trained elsewhere
    student.memory_format = torch_format(layout)
    if hyperparameters["init"] == "teacher_prefix":
        copy_prefix(student, assets.teachers.members[0].network)
    reparameterize(body, hyperparameters)
    return Student(student, learned_in_place_of(body, taken))


def recipe_of(study: Study, hyperparameters: Mapping[str, Value], execution: Execution, *, seed: int) -> Recipe:
    """Collect the settings of a trial's training, each copied by its name."""
    return make_recipe(
        {
            **study.training.model_dump(),
            **dict(study.augmentation),
            **execution.model_dump(),
            **hyperparameters,
            "seed": seed,
            "channels_last": execution.memory_format == "channels_last",
        }
    )


def make_trial(
    study: Study,
    hyperparameters: dict[str, Value],
    assets: Assets,
    *,
    seed: int,
    device: torch.device,
    execution: Execution | None = None,
) -> PreparedTrial:
    """Build a trial that is ready to train; see `TrialTask` for its settings."""
    execution = execution or make_execution(study, str(hyperparameters["architecture"]), assets, device)
    student, pretrained = make_student(study, hyperparameters, assets, seed=seed)
    recipe = recipe_of(study, hyperparameters, execution, seed=seed)
    # The study file refuses terms on features where there are several teachers.
    teacher = assets.teachers.members[0].network if recipe.uses(Role.FEATURES) else None
    # Where logits are not in a table, a teacher that runs for its features gives them in the same run.
    in_table = assets.logits is not None and not recipe.mixes
    apart = recipe.uses(Role.LOGITS) and (in_table or teacher is None or recipe.alignment != "aligned")
    teaching = assets.teaching(device, mixed=recipe.mixes) if apart else None
    data = assets.training_data(shown=teacher is not None or (teaching is not None and not in_table))
    training = Training(
        student,
        data,
        recipe,
        device=device,
        teaching=teaching,
        teacher=teacher,
        attention=None if teacher is None else assets.attention_table(device, mixed=recipe.mixes),
        pretrained=pretrained,
        metric=study.metric,
    )
    # Whether a graph could be had, and whether the trial asks the table, is known now.
    known = {"compile": training.compile, "logits": "cached" if in_table else "online"}
    return PreparedTrial(training=training, execution=execution.model_copy(update=known))


class OverlayExamples(NamedTuple):
    """Training images with their maps and overlays: (N, 3, H, W) uint8, (N, H, W) and (N, 3, H, W) in [0, 1]."""

    images: npt.NDArray[Any]
    maps: npt.NDArray[Any]
    overlays: npt.NDArray[Any]
    names: tuple[str, ...]


def overlay_examples(assets: Assets, *, strength: float, mode: str, count: int) -> OverlayExamples | None:
    """Overlay `count` un-augmented training images, one class after the other; return None without maps."""
    data = assets.training_data()
    if data.maps is None:
        return None
    # Round robin over the classes, so that a strip does not show five images of the first class.
    order = torch.argsort(_rank_within_class(data.labels), stable=True)[:count]
    images, maps = data.images[order], normalize_maps(data.maps[order], torch.ones(len(order)))
    blended = overlay(images.float() / 255, maps, torch.full((len(order),), float(strength)), mode)
    names = tuple(assets.dataset.class_names[label] for label in data.labels[order].tolist())
    return OverlayExamples(images.numpy(), maps.numpy(), blended.numpy(), names)


def _rank_within_class(labels: torch.Tensor) -> torch.Tensor:
    rank = torch.zeros_like(labels)
    for label in range(int(labels.max()) + 1):
        chosen = labels == label
        rank[chosen] = torch.arange(int(chosen.sum()))
    return rank
