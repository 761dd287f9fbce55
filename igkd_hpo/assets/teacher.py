"""One teacher: trained here, or given; kept with the hash of its weights. A study can have several, see `teachers`."""

import io
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igkd_hpo.assets.checkpoint import Taken, weights_hash
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.folds import assign_folds, folds_hash
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import Asset, AssetStore, Draft, Json
from igkd_hpo.assets.teacher_check import check_accuracy, choose_transform, examine_teacher
from igkd_hpo.assets.teacher_network import (
    build_body,
    load_given_body,
    origin_facts,
    teacher_state,
    unwrap,
    wrap,
)
from igkd_hpo.assets.teacher_output import check_output
from igkd_hpo.assets.teacher_training import (
    CHECKPOINT,
    SEED,
    begins_with,
    name_member,
    network_request,
    to_bytes,
    train_teacher,
)
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.metrics import Metric, measured
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.errors import TeacherError
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted

_SCHEMA = 1  # of the recipe and the file: raise it when the same inputs would give another teacher, but for rounding
_WEIGHTS = "weights.pt"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that is frozen and in evaluation mode, with the facts about it.

    Args:
        network: on the CPU when opened.
        sha256: of its weights, see `weights_hash`.
        validation_accuracy: a fraction; the study's metric, where `prepare_teacher` returns it, see `_judge`.
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
    inputs, name = _request(study, dataset, member), name_member(study, member)
    body, taken = None, None
    if not study.teacher.is_trained_here:
        body, taken = load_given_body(study.teacher, network_request(study, dataset, settings), settings, member=member)
        # The weights count, not where they lie.
        inputs["teacher"] = {k: v for k, v in inputs["teacher"].items() if k not in ("checkpoint", "checkpoint_key")}
        inputs["weights"] = weights_hash(teacher_state(body, study.teacher))
    begins = begins_with(study, dataset, settings, store, progress)
    if begins is not None:
        inputs["teacher"] = {**inputs["teacher"], "weights": begins.sha256}
    with store.build("teacher", inputs, progress) as draft:
        asset = draft.finished
        if asset is None:
            if body is None:
                network, threads = train_teacher(
                    study, dataset, settings, draft, begins, member=member, device=device, progress=progress
                )
                facts: dict[str, Any] = {"source": "trained here", "device": device.type, "threads": threads}
                if network.memory_format is torch.contiguous_format:  # as no other can be
                    facts["memory_format"] = "contiguous"
                if begins is not None:
                    facts |= {"weights": begins.source, "licence": begins.licence, "url": begins.url}
            else:
                progress.note(f"checking {name}")
                network, told = wrap_given(body, study, dataset, settings, device)
                for line in (taken and taken.tell(), told):
                    if line:
                        progress.note(f"{name}: {line}")
                if study.teacher.checkpoints:
                    facts = {"source": study.teacher.checkpoints[member]}
                else:
                    facts = {"source": "own", **origin_facts(network_request(study, dataset, settings))}
                facts |= {"taken": asdict(taken)} if taken else {}
            asset = _commit(draft, network, study, dataset, device, facts, name=name, taken=taken, progress=progress)
    teacher = _judge(_from_asset(asset, study, dataset, settings), asset, study, dataset, device)
    store.remember("teacher", _request(study, dataset, member), asset)
    return teacher


def _judge(teacher: Teacher, asset: Asset, study: Study, dataset: Dataset, device: torch.device) -> Teacher:
    """Return the teacher with its value of the study's metric; measured where another metric's study made it.

    Raises:
        TeacherError: in that metric it is not better than guessing.
    """
    facts, metric = asset.facts, study.metric
    judged = facts.get("judged", {"accuracy": facts["validation_accuracy"]})
    if metric in judged:
        return replace(teacher, validation_accuracy=float(judged[metric]))
    logits = predict(teacher.network, dataset.validation_images, device=device)
    value = check_accuracy(
        teacher.network, dataset, logits, device=device, metric=metric, weighable=_is_weighable(study)
    )
    teacher.network.cpu()
    return replace(teacher, validation_accuracy=value)


def _is_weighable(study: Study) -> bool:
    return study.teacher.is_trained_here and study.teacher.class_weights == "none"


def wrap_given(
    body: nn.Module, study: Study, dataset: Dataset, settings: Settings, device: torch.device
) -> tuple[Network, str | None]:
    """Put a given body behind its normalisation, and make out by trying what its weights do not say.

    Returns:
        The network, on the device, and what was made out, in words.

    Raises:
        DataError: it does not give logits for the images, see `check_output`.
    """
    network = wrap(body, study.teacher, network_request(study, dataset, settings), (dataset.mean, dataset.std))
    check_output(network, dataset, study.teacher.architecture, device=device)
    return network, choose_transform(network, body, study.teacher, dataset, device=device)


def open_teacher(study: Study, dataset: Dataset, settings: Settings, store: AssetStore, *, member: int = 0) -> Teacher:
    """Open the teacher as last prepared. Raises AssetMissing, AssetError, and UsageError (see `build_body`)."""
    return _from_asset(teacher_asset(study, dataset, store, member=member), study, dataset, settings)


def teacher_asset(study: Study, dataset: Dataset, store: AssetStore, *, member: int = 0) -> Asset:
    """Find the teacher's asset without building its network; facts: sha256, validation_accuracy and parameters.

    `dataset` may be the student's, which knows the images at the teacher's own size.
    """
    return store.recall("teacher", _request(study, dataset.shown, member))


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
        learned_from = study.augmentation.model_dump(mode="json", exclude={"mixed"})
        request |= {"augmentation": learned_from, "seed": SEED + member}
    else:
        del request["teacher"]["epochs"]
        request["teacher"]["checkpoint"] = teacher.checkpoints[member] if teacher.checkpoints else None
    if teacher.folds:
        request["without_fold"] = {"number": member, "of": folds_hash(assign_folds(dataset, teacher.folds))}
    return request


def _from_asset(asset: Asset, study: Study, dataset: Dataset, settings: Settings) -> Teacher:
    state = torch.load(io.BytesIO(asset.read(_WEIGHTS)), map_location="cpu", weights_only=True)
    request = network_request(study, dataset, settings)
    body, _ = build_body(study.teacher, request, tensors=state)
    return Teacher(
        network=wrap(
            body,
            study.teacher,
            request,
            (dataset.mean, dataset.std),
            memory_format=asset.facts.get("memory_format", "channels_last"),
        ),
        sha256=str(asset.facts["sha256"]),
        validation_accuracy=float(asset.facts["validation_accuracy"]),
        parameters=int(asset.facts["parameters"]),
        folder=asset.folder,
    )


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
    found: dict[str, Any] = {}
    for check in examine_teacher(
        network,
        dataset,
        device=device,
        given=not study.teacher.is_trained_here,
        explained=study.uses(Role.MAPS),
        metric=study.metric,
        weighable=_is_weighable(study),
        others=() if taken is None else taken.others,
    ):
        if check.error is not None:
            error = check.error if study.teacher.n_networks == 1 else TeacherError(f"{name}: {check.error}")
            if check.fatal:
                raise error
            progress.warn(str(error))
        if check.accuracy is not None:
            found |= _judged(network, dataset, device, study.metric, check.accuracy)
            n_images = len(dataset.validation_images)
            progress.note(
                f"{name}: {measured(check.accuracy, study.metric)} on {counted(n_images, 'validation image')}"
            )
    state = teacher_state(unwrap(network), study.teacher)
    draft.write(_WEIGHTS, to_bytes(state))
    found |= {"sha256": weights_hash(state), "parameters": count_parameters(network)}
    return draft.commit({**facts, **found}, drop=(CHECKPOINT,))


def _judged(network: Network, dataset: Dataset, device: torch.device, metric: Metric, value: float) -> Json:
    """Return what a teacher's record holds of a metric in which it is better than guessing: its accuracy always."""
    if metric == "accuracy":
        return {"validation_accuracy": value}
    logits = predict(network, dataset.validation_images, device=device)
    return {"validation_accuracy": accuracy(logits, dataset.validation_labels), "judged": {metric: value}}
