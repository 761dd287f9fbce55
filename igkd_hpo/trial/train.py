"""Training one student from a study file without ranges, as a trial of the study trains it."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.cost import why_infeasible
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.resolution import resolve_autos
from igkd_hpo.config.study import Study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.metrics import EpochMetrics, Metric
from igkd_hpo.errors import AssetError, IgkdError, UsageError
from igkd_hpo.files import write_bytes, write_text
from igkd_hpo.settings import Settings
from igkd_hpo.trial.messages import EpochDone, Message
from igkd_hpo.trial.task import TrialTask

if TYPE_CHECKING:
    import torch

    from igkd_hpo.distillation.models import Network
    from igkd_hpo.distillation.training import Training


@dataclass(frozen=True, kw_only=True)
class TrainedStudent:
    """A student that `train` trained, with its accuracies and files.

    Args:
        validation_accuracy: after the last epoch, a fraction, in the study's `metric`.
        test_accuracy: the same, or None when the test split was left alone.
        cost: parameters, multiply-adds, size and latency, by the names of a trial's attributes.
        folder: holds study.yaml, metrics.json and student.pt (a state dict).
        notes: reasons why the run does not repeat the exported trial bit for bit.
    """

    study: str
    seed: int
    validation_accuracy: float
    test_accuracy: float | None
    cost: dict[str, object]
    execution: dict[str, object]
    folder: str
    notes: tuple[str, ...]
    metric: Metric = "accuracy"


def train_student(
    study: Study,
    settings: Settings,
    *,
    seed: int | None,
    device: str,
    evaluate: "Callable[[Network, torch.device], float] | None",
    output: Path | None,
    progress: Progress,
) -> TrainedStudent:
    """Train, evaluate and write one student.

    Args:
        seed: instead of the file's `training.seed`.
        evaluate: measures the trained network once more, on images that this module cannot open; None leaves that out.
        output: folder; None takes one below `storage/trained`.

    Raises:
        UsageError: the file still holds ranges, or the device does not exist.
        IgkdError: the assets cannot be made, or the loss was not finite.
    """
    if ranges := study.hyperparameters.searched():
        raise UsageError(
            f"{study.name} still searches {', '.join(ranges)}; give a file without ranges, as export writes one"
        )

    import torch

    from igkd_hpo.assets.study_assets import open_assets, prepare_assets
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.reparameterization import merged
    from igkd_hpo.distillation.training import NonFiniteLoss
    from igkd_hpo.trial.attempt import run_attempt
    from igkd_hpo.trial.build import make_execution
    from igkd_hpo.trial.student import measure_student

    chosen = choose_device(device)
    summary = prepare_assets(study, settings, device=str(chosen), progress=progress)
    hashes = {"teacher_sha256": summary.teacher_sha256, "dataset_sha256": summary.dataset_sha256}
    if summary.weights_sha256 is not None:
        hashes["weights_sha256"] = summary.weights_sha256
    if summary.shown_sha256 is not None:
        hashes["shown_sha256"] = summary.shown_sha256
    notes = note_edits(study) + _note_differences(study, **hashes)
    execution = _repeat(study, chosen, notes)
    if execution is not None:
        torch.set_num_threads(execution.threads)
    for note in notes:
        progress.warn(note)
    assets = open_assets(study, settings)
    used_seed = study.training.seed if seed is None else seed
    folder = output or settings.paths.trained(study.name, fingerprint(study), used_seed)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    values, dataset = study.hyperparameters.fixed(), assets.dataset
    cost = measure_student(
        study,
        values,
        dataset.num_classes,
        dataset.image_size,
        assets.teacher_parameters,
        allow_import=settings.allow_import,
        memory_format=(execution or make_execution(study, str(values["architecture"]), assets, chosen)).memory_format,
    )
    if (reason := why_infeasible(study.limits, cost)) is not None:
        progress.warn(f"{study.name} is beyond what its device allows: {reason}")
    task = TrialTask(study=study, hyperparameters=values, seed=used_seed, execution=execution)
    with progress.task(f"training {study.name}, seed {used_seed}", study.training.epochs) as advance:
        epochs = _Epochs(advance)
        try:
            trial = run_attempt(task, assets, epochs, device=chosen)
        except NonFiniteLoss as error:
            raise IgkdError(f"the loss was not finite in epoch {error.epoch}; lower learning_rate") from None
    trained = TrainedStudent(
        study=study.name,
        seed=used_seed,
        validation_accuracy=epochs.metrics[-1].validation_accuracy,
        test_accuracy=None if evaluate is None else evaluate(trial.training.network, chosen),
        cost=cost.as_attributes(),
        execution=trial.execution.model_dump(mode="json"),
        folder=str(folder),
        notes=tuple(notes),
        metric=study.metric,
    )
    weights = io.BytesIO()
    torch.save(merged(trial.training.network.body).state_dict(), weights)
    with _writing(folder):
        write_text(folder / "study.yaml", to_yaml(resolve_autos(study, trial.execution)))
        facts = asdict(trained) | {"epochs": [asdict(epoch) for epoch in epochs.metrics]}
        write_text(folder / "metrics.json", json.dumps(facts, indent=2))
        write_bytes(folder / "student.pt", weights.getvalue())
    return trained


class _Epochs:
    """Reporter that keeps the metrics of each epoch and advances a progress bar."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.metrics: list[EpochMetrics] = []

    def report(self, message: Message) -> None:
        """Keep the metrics of an epoch; other messages do not matter."""
        if isinstance(message, EpochDone):
            self.metrics.append(message.metrics)
            self._advance(1)

    def watch(self, training: "Training") -> None:
        """Ignore the steps between epochs."""


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AssetError(f"cannot write to {folder}: {error.strerror}; give another place with -o") from error


def note_edits(study: Study) -> list[str]:
    """Return a note if an exported file was changed, so that it no longer describes the trial it names."""
    exported = _recorded(study).get("exported_fingerprint")
    if exported is None or exported == fingerprint(study):
        return []
    return [f"{study.name} was changed after it was exported; its provenance tells of another configuration"]


def _note_differences(study: Study, **hashes: str) -> list[str]:
    recorded = _recorded(study)
    return [
        f"{name} is {value[:12]}…, the exported trial had {recorded[name][:12]}…; the result will differ a little"
        for name, value in hashes.items()
        if isinstance(recorded.get(name), str) and recorded[name] != value
    ]


def _recorded(study: Study) -> dict[str, Any]:
    return (study.provenance and study.provenance.model_extra) or {}


def _repeat(study: Study, device: "torch.device", notes: list[str]) -> Execution | None:
    """Return the recorded execution if this device can repeat it; append to `notes` why the result may differ."""
    import torch

    from igkd_hpo.distillation.device import processor
    from igkd_hpo.distillation.pointwise import name_pointwise

    execution = study.provenance.execution if study.provenance else None
    if execution is None:
        return None
    if execution.device != device.type:
        notes.append(
            f"the exported trial ran on {execution.device} in {execution.precision}, this is {device.type}, which "
            "chooses its own precision; the last digits will differ"
        )
        return None
    here = {"processor": processor(device), "torch": torch.__version__}
    there = {"processor": execution.processor or here["processor"], "torch": execution.torch}
    if there != here:
        notes.append(
            f"the exported trial ran on {there['processor']} with torch {there['torch']}, this is "
            f"{here['processor']} with torch {here['torch']}; the last digits may differ"
        )
    pointwise = name_pointwise(device, channels_last=execution.memory_format == "channels_last")
    if (before := execution.pointwise or "convolution") != pointwise:
        notes.append(
            f"the exported trial computed 1x1 convolutions as {before}, this version as {pointwise}; the last digits "
            "may differ"
        )
    if study.teacher.logits == "auto" and study.uses(Role.LOGITS):
        notes.append(
            "the file does not say whether the exported trial asked its teacher in each step (logits: online) or "
            "beforehand (cached); the result may differ"
        )
    return execution.model_copy(update={**here, "pointwise": pointwise})
