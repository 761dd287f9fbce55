"""A trial's checkpoints, one file per attempt, and the journal that writes and reads them.

A file holds the training state, the metrics of every finished epoch and, at the end, the result: epochs and results
that the database missed are reported from it.
"""

import io
import logging
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.fingerprint import fingerprint as study_fingerprint
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.metrics import EpochMetrics
from igkd_hpo.distillation.recipe import as_written
from igkd_hpo.distillation.training import Training
from igkd_hpo.files import make_folder, write_bytes
from igkd_hpo.trial.checkpoint_copies import CheckpointCopies
from igkd_hpo.trial.task import TrialTask

SCHEMA = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a trial after an epoch of one of its attempts.

    Args:
        fingerprint: of the study, its images and its teacher, see `checkpoint_mark`.
        training: state of `Training`; None once the trial has its result, when only the weights are kept.
        weights: the student's state dict.
        metrics: of every finished epoch, in order.
        result: the study's metric on validation after the last epoch (a fraction), or None while there are epochs left.
    """

    fingerprint: str
    hyperparameters: dict[str, Value]
    seed: int
    training: dict[str, Any] | None
    weights: dict[str, torch.Tensor]
    metrics: tuple[EpochMetrics, ...]
    result: float | None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> bytes:
    """Replace the file in one step, flushed to the disk, and return its content.

    Raises OSError; the old file then stays as it was.
    """
    state = {"schema": SCHEMA, **vars(checkpoint), "metrics": [asdict(metrics) for metrics in checkpoint.metrics]}
    buffer = io.BytesIO()
    torch.save(state, buffer)  # not to the file: a full disk would be a RuntimeError
    make_folder(path.parent)
    write_bytes(path, content := buffer.getvalue())
    return content


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file of tensors and plain values alone. Raises ValueError if it is damaged or of another schema."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != SCHEMA:
            raise ValueError(f"checkpoint {path} has schema {content['schema']}, not {SCHEMA}")
        content["metrics"] = tuple(EpochMetrics(**metrics) for metrics in content["metrics"])
        return Checkpoint(**{field.name: content[field.name] for field in fields(Checkpoint)})
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error


def checkpoint_mark(study: Study, pins: AssetPins) -> str:
    """Return a checkpoint's `fingerprint`, which tells studies of one name with other images or networks apart."""
    hashes = (pins.dataset_sha256, pins.teacher_sha256, pins.weights_sha256, pins.shown_sha256)
    return " ".join([study_fingerprint(study), *filter(None, hashes)])


def newest_checkpoint(
    folder: Path, *, fingerprint: str, hyperparameters: Mapping[str, Value], seed: int
) -> Checkpoint | None:
    """Return the furthest usable checkpoint of a trial over all its attempts, or None.

    Files that are damaged or belong to another study of the same name are skipped and named in the log.
    """
    wanted = (fingerprint, as_written(hyperparameters), seed)
    best: Checkpoint | None = None
    for path in sorted(folder.glob("attempt-*.pt"), reverse=True):
        try:
            checkpoint = load_checkpoint(path)
        except ValueError as error:
            _log.warning("%s; an older one is used", error)
            continue
        if (checkpoint.fingerprint, as_written(checkpoint.hyperparameters), checkpoint.seed) != wanted:
            _log.warning("checkpoint %s belongs to another trial; it is not used", path)
        elif best is None or len(checkpoint.metrics) > len(best.metrics):
            best = checkpoint
    return best


class Journal:
    """Metrics and state of a trial over all its attempts, kept after each epoch in the file of the newest one.

    Args:
        earlier: the furthest checkpoint of earlier attempts; None where this is the first that trains.
        copies: in the study's remote folder; None where it has none.
    """

    def __init__(
        self,
        path: Path,
        task: TrialTask,
        mark: str,
        earlier: Checkpoint | None,
        copies: CheckpointCopies | None,
    ) -> None:
        self._path = path
        self._task = task
        self._mark = mark
        self._copies = copies
        self.earlier = earlier
        self.metrics: list[EpochMetrics] = list(earlier.metrics) if earlier else []

    @property
    def result(self) -> float | None:
        """The study's metric on validation, of a trial that an earlier attempt trained to its end; else None."""
        return self.earlier.result if self.earlier else None

    def restore(self, training: Training) -> None:
        """Let a training go on after the last epoch that was kept, if there is one; after all, it has its weights."""
        if self.earlier is None:
            return
        if self.earlier.training is None:
            training.network.body.load_state_dict(self.earlier.weights)
        else:
            training.load_state_dict(self.earlier.training)
            _log.info("going on after epoch %d", training.completed_epochs)

    def keep(self, training: Training, metrics: EpochMetrics) -> None:
        """Write the checkpoint of an epoch that has ended. Raises OSError; the one before it then stays."""
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
        content = save_checkpoint(self._path, checkpoint)
        if self._copies is not None:
            self._copies.offer(content)


def open_journal(path: Path, task: TrialTask, pins: AssetPins, *, remote: str | None = None) -> Journal:
    """Return the journal of an attempt that keeps its epochs in `path`, beside the files of the trial's earlier ones.

    Checkpoints that were trained on other content than `pins` are not used.

    Args:
        remote: URL of a folder with copies of what was trained on other hosts, and of what is trained here.
    """
    copies = None
    if remote is not None:
        copies = CheckpointCopies(remote, path)
        copies.fetch()
        copies.start()
    mark = checkpoint_mark(task.study, pins)
    earlier = newest_checkpoint(path.parent, fingerprint=mark, hyperparameters=task.hyperparameters, seed=task.seed)
    return Journal(path, task, mark, earlier, copies)
