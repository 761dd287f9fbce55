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

from igkd_hpo.config.fingerprint import fingerprint as study_fingerprint
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.training import EpochMetrics
from igkd_hpo.files import write_bytes

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
