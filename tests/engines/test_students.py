"""A network that ends its process ends none of ours, and what was found of it reaches every trial."""

import pytest
import torch

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.training import Training
from igkd_hpo.engines.local.students import refuse_untrainable, try_students
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.step import memory_format
from tests.assets.conftest import RecordingProgress
from tests.fixtures.networks import dataset_of, network_settings, study_of

CPU = torch.device("cpu")
settings = network_settings


def test_what_ends_its_process_is_trained_contiguously_and_what_raises_is_refused_before_the_teacher(
    settings: Settings,
) -> None:
    progress = RecordingProgress()
    study = study_of("nets:crashing", "nets:raising", "mobilenet_v2", "nets:silent")
    with pytest.raises(StudyFileError) as told:
        refuse_untrainable(study, settings, device="cpu", progress=progress)
    refused = str(told.value).splitlines()
    assert len(refused) == 2
    assert all(name in line for name, line in zip(("nets:raising", "nets:silent"), refused, strict=True))
    assert "KeyError" in refused[0]
    kinds = {asset.folder.name.rpartition("-")[0] for asset in AssetStore(settings.paths.assets).finished()}
    assert kinds == {"dataset", "test-split", "step"}

    dataset = dataset_of(study, settings)
    assert memory_format(study, "nets:crashing", dataset, settings, CPU) == "contiguous"
    progress.tasks.clear()
    alone = try_students(study, dataset, settings, CPU, progress)
    crashing = alone[0]
    assert (crashing.known, crashing.architecture) == (True, "nets:crashing")
    assert "SIGSEGV" in str(getattr(crashing.found, "why", ""))
    assert list(progress.tasks) == ["trying a training step of 2 students"]  # those that failed
