"""One student from a study file without ranges, the way a trial of the study trains it."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.cost import why_infeasible
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.study import Study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.distillation.metrics import EpochMetrics
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
    """What `train` made.

    Args:
        validation_accuracy: after the last epoch, a fraction.
        test_accuracy: a fraction, or None when the test split was left alone.
        cost: of the student: parameters, multiply-adds, size and latency, by the names of a trial's attributes.
        folder: holds study.yaml, metrics.json and student.pt (a state dict).
        notes: what kept the run from repeating the one it comes from bit for bit.
    """

    study: str
    seed: int
    validation_accuracy: float
    test_accuracy: float | None
    cost: dict[str, object]
    execution: dict[str, object]
    folder: str
    notes: tuple[str, ...]


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
        evaluate: Measure the trained network once more, on images that this module cannot open; None leaves that out.
        output: folder; None takes one below `storage/trained`.

    Raises:
        UsageError: the file still holds ranges, or the device does not exist.
        IgkdError: what making the assets raises.
    """
    if ranges := study.hyperparameters.searched():
        raise UsageError(
            f"{study.name} still searches {', '.join(ranges)}; give a file without ranges, as export writes one"
        )

    import torch

    from igkd_hpo.assets.study_assets import open_assets, prepare_assets
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.training import NonFiniteLoss
    from igkd_hpo.trial.attempt import run_attempt
    from igkd_hpo.trial.student import measure_student

    chosen = choose_device(device)
    summary = prepare_assets(study, settings, device=str(chosen), progress=progress)
    notes = edited(study) + _differences(
        study, teacher_sha256=summary.teacher_sha256, dataset_sha256=summary.dataset_sha256
    )
    execution = _repeat(study, chosen.type, torch.__version__, notes)
    if execution is not None:
        torch.set_num_threads(execution.threads)
    for note in notes:
        progress.warn(note)
    assets = open_assets(study, settings)
    used_seed = study.training.seed if seed is None else seed
    folder = output or settings.paths.trained(study.name, fingerprint(study), used_seed)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    cost = measure_student(
        study.hyperparameters.fixed(),
        architecture=study.student.architecture,
        num_classes=assets.dataset.num_classes,
        image_size=assets.dataset.image_size,
        teacher_parameters=assets.teacher_parameters,
        limits=study.limits,
    )
    if (beyond := why_infeasible(study.limits, cost)) is not None:
        progress.warn(f"{study.name} is beyond what its device allows: {beyond}")
    task = TrialTask(study=study, hyperparameters=study.hyperparameters.fixed(), seed=used_seed, execution=execution)
    with progress.task(f"training {study.name}, seed {used_seed}", study.training.epochs) as advance:
        epochs = _Epochs(advance)
        try:
            trial = run_attempt(task, assets, epochs, device=chosen)
        except NonFiniteLoss as error:
            raise IgkdError(f"the loss was not finite in epoch {error.epoch}; lower learning_rate") from None

    test_accuracy = None
    if evaluate is not None:
        test_accuracy = evaluate(trial.training.network, chosen)

    trained = TrainedStudent(
        study=study.name,
        seed=used_seed,
        validation_accuracy=epochs.metrics[-1].validation_accuracy,
        test_accuracy=test_accuracy,
        cost=cost.as_attributes(),
        execution=trial.execution.model_dump(mode="json"),
        folder=str(folder),
        notes=tuple(notes),
    )
    weights = io.BytesIO()
    torch.save(trial.training.network.body.state_dict(), weights)
    with _writing(folder):
        write_text(folder / "study.yaml", to_yaml(study))
        facts = asdict(trained) | {"epochs": [asdict(epoch) for epoch in epochs.metrics]}
        write_text(folder / "metrics.json", json.dumps(facts, indent=2))
        write_bytes(folder / "student.pt", weights.getvalue())
    return trained


class _Epochs:
    """Keeps the metrics of a trial's epochs, and shows how far it is."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.metrics: list[EpochMetrics] = []

    def report(self, message: Message) -> None:
        """Take in an epoch."""
        if isinstance(message, EpochDone):
            self.metrics.append(message.metrics)
            self._advance(1)

    def watch(self, training: "Training") -> None:
        """Look at nothing between epochs."""


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AssetError(f"cannot write to {folder}: {error.strerror}; give another place with -o") from error


def edited(study: Study) -> list[str]:
    """Whether an exported file was changed, so that it no longer describes the trial it names."""
    recorded = study.provenance.model_extra if study.provenance else None
    exported = recorded.get("exported_fingerprint") if recorded else None
    if exported is None or exported == fingerprint(study):
        return []
    return [f"{study.name} was changed after it was exported; its provenance tells of another configuration"]


def _differences(study: Study, **now: str) -> list[str]:
    """What differs from the run that an exported file comes from."""
    recorded = study.provenance.model_extra if study.provenance else None
    return [
        f"{name} is {value[:12]}…, the exported trial had {recorded[name][:12]}…; the result will differ a little"
        for name, value in now.items()
        if recorded and isinstance(recorded.get(name), str) and recorded[name] != value
    ]


def _repeat(study: Study, device_type: str, torch_version: str, notes: list[str]) -> Execution | None:
    """The recorded execution when this device can repeat it."""
    execution = study.provenance.execution if study.provenance else None
    if execution is not None and execution.device != device_type:
        notes.append(
            f"the exported trial ran on {execution.device}, this is {device_type}; the last digits will differ"
        )
        return None
    if execution is not None and execution.torch != torch_version:
        notes.append(
            f"the exported trial ran on torch {execution.torch}, this is {torch_version}; the last digits may differ"
        )
        return execution.model_copy(update={"torch": torch_version})
    return execution
