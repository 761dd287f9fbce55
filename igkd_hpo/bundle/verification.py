"""Verification of a bundle: its study, trained once more on this machine, against what the bundle claims."""

from dataclasses import dataclass
from pathlib import Path

from igkd_hpo.assets.progress import Progress
from igkd_hpo.bundle.contents import STUDY, Expected, check_files, read_record
from igkd_hpo.config.reading import read_study
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of one training beside what the bundle expects; accuracies are fractions.

    Args:
        inside: it lies between `expected.low` and `expected.high`.
        folder: of the training, with its metrics and weights.
        notes: what differs from the run that the bundle comes from.
    """

    study: str
    seed: int
    validation_accuracy: float
    expected: Expected
    inside: bool
    folder: str
    notes: tuple[str, ...]


def verify_bundle(
    bundle: Path, settings: Settings, *, seed: int | None, device: str, output: Path | None, progress: Progress
) -> Verification:
    """Check every file's hash, then train the bundle's study once, from its file alone.

    Args:
        seed: instead of the one that the bundle names.
        output: folder of the training; None takes one below `storage/trained`.

    Raises:
        UsageError, DataError: no bundle, or one that was changed.
        IgkdError: what training raises.
    """
    record = read_record(bundle)
    check_files(bundle, record)
    from igkd_hpo.trial.train import train_student

    study, expected = read_study(bundle / STUDY), record.expected
    refuse_untrainable(study, settings, device=device, progress=progress)
    seed = expected.seed if seed is None else seed
    trained = train_student(study, settings, seed=seed, device=device, evaluate=None, output=output, progress=progress)
    return Verification(
        study=study.name,
        seed=trained.seed,
        validation_accuracy=trained.validation_accuracy,
        expected=expected,
        inside=expected.holds(trained.validation_accuracy),
        folder=trained.folder,
        notes=trained.notes,
    )
