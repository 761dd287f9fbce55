"""Train one student from a study file without ranges."""

from collections.abc import Iterable
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING

from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.config.study import Study
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.files import user_path
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.progress import make_progress
from igkd_hpo.trial.train import TrainedStudent, train_student

if TYPE_CHECKING:
    import torch

    from igkd_hpo.distillation.models import Network


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
        IgkdError: the assets cannot be made.
    """
    settings = settings_here(allow_import=allow_import)
    config = study_to_run(study, settings).without_controls()

    import torch

    from igkd_hpo.distillation.threads import torch_threads

    folder = None if output is None else user_path(output)
    evaluate = partial(test_result, config, settings) if test else None
    # Training sets the threads to those of the trial that it repeats; the caller's come back.
    with torch_threads(torch.get_num_threads()), make_progress(progress) as shown:
        refuse_untrainable(config, settings, device=device, progress=shown)
        return train_student(
            config, settings, seed=seed, device=device, evaluate=evaluate, output=folder, progress=shown
        )


def test_result(study: Study, settings: Settings, network: "Network", device: "torch.device") -> float:
    """Return a network's value of the study's metric on the test split, a fraction; the opening is logged."""
    from igkd_hpo.assets.test_split import TestPurpose, open_test
    from igkd_hpo.distillation.evaluation import judge, predict

    images, labels = open_test(study.dataset, settings, purpose=TestPurpose.TRAIN_TEST)
    return judge(predict(network, images, device=device), labels, study.metric)
