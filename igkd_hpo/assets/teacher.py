"""One teacher: trained here, or given; kept with the hash of its weights. A study can have several, see `teachers`."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igkd_hpo.assets.checkpoint import Taken, weights_hash
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.folds import assign_folds, folds_hash
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import Asset, AssetStore, Draft, Json
from igkd_hpo.assets.teacher_check import choose_transform, examine_teacher
from igkd_hpo.assets.teacher_network import build_body, load_given_body, teacher_request, teacher_state, unwrap, wrap
from igkd_hpo.assets.teacher_output import check_output
from igkd_hpo.assets.threads import fastest_threads
from igkd_hpo.assets.weights import Weights, begin_with, prepare_weights
from igkd_hpo.config.resolution import recorded_execution, training_on
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.images import choose
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.distillation.recipe import Recipe, make_recipe, plain_values
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.errors import AssetError, TeacherError
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted, percent

_SCHEMA = 1  # of the recipe and the file: raise it when the same inputs would give another teacher
_WEIGHTS = "weights.pt"
_CHECKPOINT = "training.pt"
# Of member 0, those after it count on. Not the students' training.seed: an exported file carries its trial's seed, and
# must find the same teacher.
_SEED = 0
_BATCH_SIZE = 128
_LEARNING_RATE = 0.1  # for that batch size, and in proportion for smaller ones: at 0.1, batches of 64 diverged at times
_FINE_TUNING_RATE = 0.01  # of published weights, as people fine-tune them: a tenth of the rate for random ones
_FEWEST_STEPS = 16  # in an epoch: few images go in smaller batches, down to 16


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that is frozen and in evaluation mode, with the facts about it.

    Args:
        network: on the CPU when opened.
        sha256: of its weights, see `weights_hash`.
        validation_accuracy: a fraction.
        folder: of the asset.
    """

    network: Network
    sha256: str
    validation_accuracy: float
    parameters: int
    folder: Path


def prepare_teacher(
    study: Study,
    dataset: Dataset,
    settings: Settings,
    store: AssetStore,
    *,
    member: int = 0,
    device: torch.device,
    progress: Progress,
) -> Teacher:
    """Return one of the study's teachers, trained or taken in if it is missing, and checked against guessing.

    Args:
        member: its number, from 0.

    Raises:
        TeacherError: it learned nothing, or its training diverged.
        DataError, UsageError: its checkpoint, weights or code cannot be used, or the images do not suffice for folds.
        AssetError: the asset is damaged or cannot be written.
    """
    inputs, name = _request(study, dataset, member), _name_member(study, member)
    body, taken = None, None
    if not study.teacher.is_trained_here:
        body, taken = load_given_body(study.teacher, _network(study, dataset, settings), settings, member=member)
        # The weights count, not where they lie.
        inputs["teacher"] = {k: v for k, v in inputs["teacher"].items() if k not in ("checkpoint", "checkpoint_key")}
        inputs["weights"] = weights_hash(teacher_state(body, study.teacher))
    begins = _begins_with(study, dataset, settings, store, progress)
    if begins is not None:
        inputs["teacher"] = {**inputs["teacher"], "weights": begins.sha256}
    with store.build("teacher", inputs, progress) as draft:
        asset = draft.finished
        if asset is None:
            if body is None:
                network, threads = _train(
                    study, dataset, settings, draft, begins, member=member, device=device, progress=progress
                )
                facts: Json = {"source": "trained here", "device": device.type, "threads": threads}
                if begins is not None:
                    facts = {**facts, "weights": begins.source, "licence": begins.licence}
            else:
                progress.note(f"checking {name}")
                network, told = wrap_given(body, study, dataset, settings, device)
                for line in (taken and taken.tell(), told):
                    if line:
                        progress.note(f"{name}: {line}")
                source = study.teacher.checkpoints[member] if study.teacher.checkpoints else "own"
                facts = {"source": source, **({"taken": asdict(taken)} if taken else {})}
            asset = _commit(draft, network, study, dataset, device, facts, name=name, taken=taken, progress=progress)
    store.remember("teacher", _request(study, dataset, member), asset)
    return _from_asset(asset, study, dataset, settings)


def wrap_given(
    body: nn.Module, study: Study, dataset: Dataset, settings: Settings, device: torch.device
) -> tuple[Network, str | None]:
    """Put a given body behind its normalisation, and make out by trying what its weights do not say.

    Returns:
        The network, on the device, and what was made out, in words.

    Raises:
        DataError: it does not give logits for the images, see `check_output`.
    """
    network = wrap(body, study.teacher, _network(study, dataset, settings), (dataset.mean, dataset.std))
    check_output(network, dataset, study.teacher.architecture, device=device)
    return network, choose_transform(network, body, study.teacher, dataset, device=device)


def open_teacher(study: Study, dataset: Dataset, settings: Settings, store: AssetStore, *, member: int = 0) -> Teacher:
    """Open the teacher as last prepared. Raises AssetMissing, AssetError, and UsageError (see `build_body`)."""
    return _from_asset(teacher_asset(study, dataset, store, member=member), study, dataset, settings)


def teacher_asset(study: Study, dataset: Dataset, store: AssetStore, *, member: int = 0) -> Asset:
    """Find the teacher's asset without building its network; facts: sha256, validation_accuracy and parameters."""
    return store.recall("teacher", _request(study, dataset, member))


def teacher_identity(study: Study, teacher_sha256: str) -> dict[str, Any]:
    """Return all that the teacher's logits depend on: its weights and the treatment of its input, as JSON values."""
    return {
        "weights": teacher_sha256,
        "architecture": study.teacher.architecture,
        **study.teacher.model_dump(mode="json", include={"normalize", "input_size"}),
    }


def _request(study: Study, dataset: Dataset, member: int) -> dict[str, Any]:
    """Return the settings that decide the teacher, as JSON values.

    The number of members is not among them: member 0 of several is the teacher that a study with one has.
    """
    teacher = study.teacher
    request: dict[str, Any] = {
        "schema": _SCHEMA,
        "dataset": dataset.sha256,
        "teacher": teacher.model_dump(mode="json", exclude={"logits", "members", "folds"}),
    }
    for key in ("checkpoint_key", "weights", "learning_rate"):  # as it was before there were these
        if getattr(teacher, key) is None:
            del request["teacher"][key]
    if teacher.is_trained_here:
        request |= {"augmentation": study.augmentation.model_dump(mode="json"), "seed": _SEED + member}
    else:
        del request["teacher"]["epochs"]
        request["teacher"]["checkpoint"] = teacher.checkpoints[member] if teacher.checkpoints else None
    if teacher.folds:
        request["without_fold"] = {"number": member, "of": folds_hash(assign_folds(dataset, teacher.folds))}
    return request


def _from_asset(asset: Asset, study: Study, dataset: Dataset, settings: Settings) -> Teacher:
    state = torch.load(io.BytesIO(asset.read(_WEIGHTS)), map_location="cpu", weights_only=True)
    request = _network(study, dataset, settings)
    body, _ = build_body(study.teacher, request, tensors=state)
    return Teacher(
        network=wrap(body, study.teacher, request, (dataset.mean, dataset.std)),
        sha256=str(asset.facts["sha256"]),
        validation_accuracy=float(asset.facts["validation_accuracy"]),
        parameters=int(asset.facts["parameters"]),
        folder=asset.folder,
    )


def _network(study: Study, dataset: Dataset, settings: Settings) -> Request:
    return teacher_request(study.teacher, dataset.num_classes, dataset.image_size, settings)


def _begins_with(
    study: Study, dataset: Dataset, settings: Settings, store: AssetStore, progress: Progress
) -> Weights | None:
    """Return the weights that the teacher begins with, taken in unless they were before; None where it has none."""
    weights = study.teacher.weights
    if weights is None:
        return None
    file = None if weights == "pretrained" else weights
    request = _network(study, dataset, settings)
    return prepare_weights(request, file, settings, store, progress, key="teacher.weights")


def _train(
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
    with torch.random.fork_rng([]):
        torch.manual_seed(_SEED + member)
        body, _ = build_body(study.teacher, request := _network(study, dataset, settings))
        if begins is None:
            _start_as_identity(body)
        else:
            begin_with(body, begins, cut=False)
    network = wrap(body, study.teacher, request, (dataset.mean, dataset.std)).requires_grad_(True)
    data = _training_data(study, dataset, member)
    recipe = _recipe(study, len(data.images), device, seed=_SEED + member)
    training = Training(network, data, recipe, device=device, teaching=None)
    _resume(training, draft)
    name = _name_member(study, member)
    recorded = recorded_execution(study, device.type)
    as_before = recorded.teacher_threads if recorded else None
    with (
        fastest_threads(dataset.image_size, device, recorded=as_before) as threads,
        progress.task(f"training {name}", recipe.epochs) as advance,
    ):
        advance(training.completed_epochs)
        try:
            for _ in training.epochs():
                draft.write(_CHECKPOINT, _to_bytes(training.state_dict()))
                advance(1)
        except NonFiniteLoss as error:
            raise TeacherError(
                f"the training of {name} diverged in epoch {error.epoch}; "
                "check the images and teacher.normalize, or give teacher.checkpoint"
            ) from error
    return network.eval().requires_grad_(False), threads if device.type == "cpu" else None


def _name_member(study: Study, member: int) -> str:
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


def _recipe(study: Study, n_images: int, device: torch.device, *, seed: int) -> Recipe:
    batch_size = max(16, min(_BATCH_SIZE, n_images // _FEWEST_STEPS))
    init, usual = ("random", _LEARNING_RATE) if study.teacher.weights is None else ("pretrained", _FINE_TUNING_RATE)
    return make_recipe(
        {
            **plain_values(),
            **dict(study.augmentation),
            "epochs": study.teacher.epochs,
            "batch_size": batch_size,
            "optimizer": "sgd",
            "schedule": "one_cycle",
            "learning_rate": (study.teacher.learning_rate or usual) * batch_size / _BATCH_SIZE,
            "init": init,
            "temperature": 1.0,
            "overlay_strength": 0.0,
            "seed": seed,
            "precision": (precision := resolve_precision(training_on(study, device.type).precision, device)),
            "channels_last": True,
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
    state = draft.read(_CHECKPOINT)
    if state is None:
        return
    try:
        training.load_state_dict(torch.load(io.BytesIO(state), map_location=training.device, weights_only=True))
    except Exception as error:  # a damaged file shows itself in many ways
        raise AssetError(f"{draft.folder / _CHECKPOINT} is damaged; delete {draft.folder} and run again") from error


def _commit(
    draft: Draft,
    network: Network,
    study: Study,
    dataset: Dataset,
    device: torch.device,
    facts: Json,
    *,
    name: str,
    taken: Taken | None,
    progress: Progress,
) -> Asset:
    measured: dict[str, Any] = {}
    for check in examine_teacher(
        network,
        dataset,
        device=device,
        given=not study.teacher.is_trained_here,
        explained=study.uses(Role.MAPS),
        others=() if taken is None else taken.others,
    ):
        if check.error is not None:
            error = check.error if study.teacher.n_networks == 1 else TeacherError(f"{name}: {check.error}")
            if check.fatal:
                raise error
            progress.warn(str(error))
        if check.accuracy is not None:
            measured["validation_accuracy"] = check.accuracy
            n_images = len(dataset.validation_images)
            progress.note(f"{name}: {percent(check.accuracy)} on {counted(n_images, 'validation image')}")
    state = teacher_state(unwrap(network), study.teacher)
    draft.write(_WEIGHTS, _to_bytes(state))
    measured |= {"sha256": weights_hash(state), "parameters": count_parameters(network)}
    return draft.commit({**facts, **measured}, drop=(_CHECKPOINT,))


def _to_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
