"""The training of a teacher here: from random or published weights, resumed after a kill, or tried for three steps."""

import io
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.folds import assign_folds
from igkd_hpo.assets.layout import teacher_layout
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore, Draft
from igkd_hpo.assets.teacher_network import build_body, teacher_request, wrap
from igkd_hpo.assets.threads import fastest_threads
from igkd_hpo.assets.weights import Weights, begin_with, prepare_weights
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.config.resolution import recorded_execution, training_on
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
from igkd_hpo.distillation.images import choose
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe, make_recipe, plain_values
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.errors import AssetError, TeacherError
from igkd_hpo.settings import Settings

CHECKPOINT = "training.pt"
"""The file of an unfinished training in its draft."""
# Of member 0, those after it count on. Not the students' training.seed: an exported file carries its trial's seed, and
# must find the same teacher.
SEED = 0
_BATCH_SIZE = 128
_LEARNING_RATE = 0.1  # for that batch size, and in proportion for smaller ones: at 0.1, batches of 64 diverged at times
_FINE_TUNING_RATE = 0.01  # of published weights, as people fine-tune them: a tenth of the rate for random ones
_FEWEST_STEPS = 16  # in an epoch: few images go in smaller batches, down to 16


def network_request(study: Study, dataset: Dataset, settings: Settings) -> Request:
    """Return what the study's teacher is asked for."""
    return teacher_request(study.teacher, dataset.num_classes, dataset.image_size, settings)


def begins_with(
    study: Study, dataset: Dataset, settings: Settings, store: AssetStore, progress: Progress
) -> Weights | None:
    """Return the weights that the teacher begins with, taken in unless they were before; None where it has none."""
    weights = study.teacher.weights
    if weights is None:
        return None
    file = None if weights == "pretrained" else weights
    request = network_request(study, dataset, settings)
    return prepare_weights(request, file, settings, store, progress, key="teacher.weights")


def train_teacher(
    study: Study,
    dataset: Dataset,
    settings: Settings,
    draft: Draft,
    begins: Weights | None,
    *,
    member: int,
    device: torch.device,
    progress: Progress,
) -> tuple[Network, int | None]:
    """Train a teacher, going on where a killed run stopped; return it, and the threads that it had on a CPU.

    Args:
        draft: of its asset, which holds the checkpoint of each epoch.
        begins: what it begins with; None for random weights.
        member: its number among several, from 0.

    Raises:
        TeacherError: the training diverged.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED + member)
        body, _ = build_body(study.teacher, request := network_request(study, dataset, settings))
        if begins is None:
            _start_as_identity(body)
        else:
            begin_with(body, begins, cut=False)
    layout = teacher_layout(study, dataset, settings, device)
    statistics = (dataset.mean, dataset.std)
    network = wrap(body, study.teacher, request, statistics, memory_format=layout).requires_grad_(True)
    data = _training_data(study, dataset, member)
    recipe = teacher_recipe(study, len(data.images), device, seed=SEED + member, memory_format=layout)
    training = Training(network, data, recipe, device=device, teaching=None)
    _resume(training, draft)
    name = name_member(study, member)
    recorded = recorded_execution(study, device.type)
    as_before = recorded.teacher_threads if recorded else None
    with (
        fastest_threads(dataset.image_size, device, recorded=as_before) as threads,
        progress.task(f"training {name}", recipe.epochs) as advance,
    ):
        advance(training.completed_epochs)
        try:
            for _ in training.epochs():
                draft.write(CHECKPOINT, to_bytes(training.state_dict()))
                advance(1)
        except NonFiniteLoss as error:
            raise TeacherError(
                f"the training of {name} diverged in epoch {error.epoch}; "
                "check the images and teacher.normalize, or give teacher.checkpoint"
            ) from error
    return network.eval().requires_grad_(False), threads if device.type == "cpu" else None


def train_briefly(
    study: Study, dataset: Dataset, settings: Settings, device: torch.device, *, memory_format: MemoryFormat
) -> None:
    """Train a teacher with random weights for three steps of two images, to see whether it can be."""
    body, _ = build_body(study.teacher, request := network_request(study, dataset, settings))
    statistics = (dataset.mean, dataset.std)
    network = wrap(body, study.teacher, request, statistics, memory_format=memory_format).requires_grad_(True)
    whole = vars(_training_data(study, dataset, 0)).items()
    few: dict[str, Any] = {name: part[: 3 * 2] for name, part in whole if isinstance(part, Tensor)}
    recipe = teacher_recipe(study, 3 * 2, device, seed=SEED, memory_format=memory_format)
    recipe = replace(recipe, epochs=1, batch_size=2, learning_rate=1e-6, compile="none")
    list(Training(network, TrainingData(maps=None, **few), recipe, device=device, teaching=None).epochs())


def name_member(study: Study, member: int) -> str:
    """Return what people call the teacher of this number."""
    many = study.teacher.n_networks
    return "the teacher" if many == 1 else f"teacher {member + 1} of {many}"


def _start_as_identity(body: nn.Module) -> None:
    """Let every residual block begin by passing its input on.

    On the 1,149 training images of `digits` (width 0.5, 15 epochs, batch 71) the validation accuracy was 0.95 without
    it (two runs) and 0.974 with it (mean of six, 0.951 to 0.98), and the training loss came below 1 two epochs earlier.

    Source: Goyal et al. 2017, arXiv 1706.02677, section 5.1.
    """
    from torchvision.models.mobilenetv2 import InvertedResidual  # 1.7 s, which a teacher that is given does not need

    for module in body.modules():
        if isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.zeros_(module.conv[-1].weight)


def teacher_recipe(
    study: Study, n_images: int, device: torch.device, *, seed: int, memory_format: MemoryFormat
) -> Recipe:
    """Return the recipe of a teacher that is trained here, on so many images."""
    batch_size = max(16, min(_BATCH_SIZE, n_images // _FEWEST_STEPS))
    init, usual = ("random", _LEARNING_RATE) if study.teacher.weights is None else ("pretrained", _FINE_TUNING_RATE)
    return make_recipe(
        {
            **plain_values(),
            **dict(study.augmentation),
            "mixed": None,  # of photographs from shops it was right on 80 % with crops alone, on 75 % with mixtures
            "epochs": study.teacher.epochs,
            "batch_size": batch_size,
            "optimizer": "sgd",
            "schedule": "one_cycle",
            "learning_rate": (study.teacher.learning_rate or usual) * batch_size / _BATCH_SIZE,
            "init": init,
            "temperature": 1.0,
            "overlay_strength": 0.0,
            "class_weights": study.teacher.class_weights,
            "seed": seed,
            "precision": (precision := resolve_precision(training_on(study, device.type).precision, device)),
            "channels_last": memory_format == "channels_last",
            "compile": resolve_compile("auto", device, precision),
        }
    )


def _training_data(study: Study, dataset: Dataset, member: int) -> TrainingData:
    images, labels, digests = dataset.train_images, dataset.train_labels, dataset.digests
    if study.teacher.folds:
        seen = torch.nonzero(assign_folds(dataset, study.teacher.folds) != member)[:, 0]
        images, labels, digests = choose(images, seen), labels[seen], digests[seen]
    return TrainingData(
        images=images,
        labels=labels,
        maps=None,
        validation_images=dataset.validation_images,
        validation_labels=dataset.validation_labels,
        digests=digests,
    )


def _resume(training: Training, draft: Draft) -> None:
    state = draft.read(CHECKPOINT)
    if state is None:
        return
    try:
        training.load_state_dict(torch.load(io.BytesIO(state), map_location=training.device, weights_only=True))
    except Exception as error:  # a damaged file shows itself in many ways
        raise AssetError(f"{draft.folder / CHECKPOINT} is damaged; delete {draft.folder} and run again") from error


def to_bytes(value: object) -> bytes:
    """Return what torch saves of a value."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
