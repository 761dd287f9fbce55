"""A trial's checkpoint: one file per attempt, and the journal of what the trial has done.

The file holds the training state, the metrics of every finished epoch and, at the end, the result. What the database
missed is reported from it, and a trial that finished but was never told is told from it.
"""

import io
import logging
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.fingerprint import fingerprint as study_fingerprint
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.metrics import EpochMetrics
from igkd_hpo.distillation.training import Training
from igkd_hpo.files import write_bytes
from igkd_hpo.trial.task import TrialTask

SCHEMA = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What one attempt left behind.

    Args:
        fingerprint: of the study whose trial this is, with its images and teacher.
        hyperparameters: what the trial trains with.
        seed: of the trial.
        training: state of `Training`; None once the trial has its result, when only the weights are kept.
        weights: the student's state dict.
        metrics: of every finished epoch, in order.
        result: validation accuracy after the last epoch (a fraction), or None while there are epochs left.
    """

    fingerprint: str
    hyperparameters: dict[str, Value]
    seed: int
    training: dict[str, Any] | None
    weights: dict[str, torch.Tensor]
    metrics: tuple[EpochMetrics, ...]
    result: float | None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file in one step, flushed to the disk. Raises OSError; the old file then stays as it was."""
    content = {
        "schema": SCHEMA,
        "fingerprint": checkpoint.fingerprint,
        "hyperparameters": checkpoint.hyperparameters,
        "seed": checkpoint.seed,
        "training": checkpoint.training,
        "weights": checkpoint.weights,
        "metrics": [asdict(metrics) for metrics in checkpoint.metrics],
        "result": checkpoint.result,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)  # not to the file: a full disk would be a RuntimeError
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one file; nothing but tensors and plain values is accepted.

    Raises:
        ValueError: the file is damaged, or of another schema.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != SCHEMA:
            raise ValueError(f"checkpoint {path} has schema {content['schema']}, not {SCHEMA}")
        return Checkpoint(
            fingerprint=content["fingerprint"],
            hyperparameters=content["hyperparameters"],
            seed=content["seed"],
            training=content["training"],
            weights=content["weights"],
            metrics=tuple(EpochMetrics(**metrics) for metrics in content["metrics"]),
            result=content["result"],
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error


def checkpoint_mark(study: Study, *, dataset_sha256: str, teacher_sha256: str) -> str:
    """A checkpoint's `fingerprint`: a study of the same name on other images, or with another teacher, has another."""
    return f"{study_fingerprint(study)} {dataset_sha256} {teacher_sha256}"


def newest_checkpoint(
    folder: Path, *, fingerprint: str, hyperparameters: Mapping[str, Value], seed: int
) -> Checkpoint | None:
    """The furthest usable checkpoint of a trial over all its attempts, or None.

    Files that are damaged or belong to another study of the same name are passed over and named in the log.
    """
    best: Checkpoint | None = None
    for path in sorted(folder.glob("attempt-*.pt"), reverse=True):
        try:
            checkpoint = load_checkpoint(path)
        except ValueError as error:
            _log.warning("%s; an older one is used", error)
            continue
        if (checkpoint.fingerprint, checkpoint.hyperparameters, checkpoint.seed) != (
            fingerprint,
            hyperparameters,
            seed,
        ):
            _log.warning("checkpoint %s belongs to another trial; it is not used", path)
            continue
        if best is None or len(checkpoint.metrics) > len(best.metrics):
            best = checkpoint
    return best


class Journal:
    """What a trial has done in all its attempts, kept after each epoch in the file of the newest one.

    Args:
        earlier: what the attempts before this one left; None where this is the first that trains.
    """

    def __init__(self, path: Path, task: TrialTask, mark: str, earlier: Checkpoint | None) -> None:
        self._path = path
        self._task = task
        self._mark = mark
        self.earlier = earlier
        self.metrics: list[EpochMetrics] = list(earlier.metrics) if earlier else []

    @property
    def result(self) -> float | None:
        """The validation accuracy of a trial that had trained to its end but was never told; else None."""
        return self.earlier.result if self.earlier else None

    def restore(self, training: Training) -> None:
        """Let a training go on after the last epoch that was kept; a first attempt stays as it is."""
        if self.earlier is not None and self.earlier.training is not None:
            training.load_state_dict(self.earlier.training)
            _log.info("going on after epoch %d", training.completed_epochs)

    def keep(self, training: Training, metrics: EpochMetrics) -> None:
        """Add an epoch that has ended. Raises OSError; what was kept before stays."""
        self.metrics.append(metrics)
        finished = metrics.epoch == self._task.study.training.epochs
        checkpoint = Checkpoint(
            fingerprint=self._mark,
            hyperparameters=self._task.hyperparameters,
            seed=self._task.seed,
            training=None if finished else training.state_dict(),
            weights=training.network.body.state_dict(),
            metrics=tuple(self.metrics),
            result=metrics.validation_accuracy if finished else None,
        )
        save_checkpoint(self._path, checkpoint)


def open_journal(path: Path, task: TrialTask, pins: AssetPins) -> Journal:
    """Return the journal of an attempt that keeps its epochs in `path`, beside the files of the trial's earlier ones.

    Args:
        pins: the content of images and teacher here; what was trained on other content is not used.
    """
    mark = checkpoint_mark(task.study, dataset_sha256=pins.dataset_sha256, teacher_sha256=pins.teacher_sha256)
    earlier = newest_checkpoint(path.parent, fingerprint=mark, hyperparameters=task.hyperparameters, seed=task.seed)
    return Journal(path, task, mark, earlier)
