"""Train one student from a study file without ranges."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from igkd_hpo.api.progress import make_progress
from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.results.train import TrainedStudent, train_student


def train(
    study: StudyLike,
    *,
    seed: int | None = None,
    device: str = "auto",
    allow_import: str | Iterable[str] = (),
    test: bool = False,
    output: str | PathLike[str] | None = None,
    progress: bool = True,
) -> TrainedStudent:
    """Train one student, in this process: metrics and checkpoint.

    Args:
        study: a study file without ranges, such as best.yaml.
        seed: instead of the file's training.seed.
        test: also read the test split, once, at the end.
        output: folder for metrics.json and student.pt; None takes one below storage/trained.
        device, allow_import, progress: as for `launch`.

    Raises:
        UsageError: the file still holds ranges, or the device does not exist.
        IgkdError: what making the assets raises.
    """
    settings = settings_here(allow_import=allow_import)
    config = study_to_run(study, settings)
    folder = None if output is None else Path(output)

    import torch

    threads = torch.get_num_threads()  # training sets them to those of the trial that it repeats
    try:
        with make_progress(progress) as shown:
            return train_student(config, settings, seed=seed, device=device, test=test, output=folder, progress=shown)
    finally:
        torch.set_num_threads(threads)
