"""A network that ends its process ends none of ours, and what was found of it reaches every trial."""

from contextlib import closing

import pytest
import torch

import igkd_hpo
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.distillation.evaluation import predict
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.students import refuse_untrainable, try_students
from igkd_hpo.errors import StudyFileError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network
from igkd_hpo.trial.step import memory_format
from tests.assets.conftest import RecordingProgress
from tests.fixtures.networks import dataset_of, network_settings, study_of

CPU = torch.device("cpu")
settings = network_settings


def test_what_ends_its_process_is_trained_contiguously_and_what_raises_is_refused_before_the_teacher(
    settings: Settings,
) -> None:
    progress = RecordingProgress()
    study = study_of("nets:crashing", "nets:raising", "mobilenet_v2", "nets:silent", "torchvision/alexnet")
    with pytest.raises(StudyFileError) as told:
        refuse_untrainable(study, settings, device="cpu", progress=progress)
    refused = str(told.value).splitlines()
    names = ("nets:raising", "nets:silent", "torchvision/alexnet")
    assert all(name in line for name, line in zip(names, refused, strict=True))
    assert "KeyError" in refused[0]
    assert "larger images" in refused[2]  # of 8x8
    (note,) = progress.notes
    assert "nets:crashing" in note
    kinds = {asset.folder.name.rpartition("-")[0] for asset in AssetStore(settings.paths.assets).finished()}
    assert kinds == {"dataset", "test-split", "step"}

    dataset = dataset_of(study, settings)
    assert memory_format(study, "nets:crashing", dataset, settings, CPU) == "contiguous"
    progress.tasks.clear()
    with closing(ForkServer()) as server:
        alone = try_students(study, dataset, settings, CPU, progress, server)
    crashing = alone[0]
    assert (crashing.known, crashing.architecture) == (True, "nets:crashing")
    assert "SIGSEGV" in str(getattr(crashing.found, "why", ""))
    assert list(progress.tasks) == ["trying a training step of 3 students"]  # those that failed


def test_contiguous_memory_is_used_from_the_first_trial_to_the_last_evaluation(settings: Settings) -> None:
    """The network raises in the other layout, in training and in evaluation alike."""
    study_file = study_of("nets:viewing")
    study = igkd_hpo.launch(study_file, allow_import="nets", engine="in_process", progress=False)
    (trial,) = study.trials
    assert trial.state == "COMPLETE", trial
    assert study.best.execution is not None
    assert study.best.execution.memory_format == "contiguous"
    assets = open_assets(study_file, settings)
    kept = kept_network(
        study_file,
        assets,
        settings,
        folder=study.name,
        number=0,
        hyperparameters=study.best.hyperparameters,
        seed=study.best.seed,
    )
    assert kept is not None
    assert predict(kept[0], assets.dataset.validation_images, device=CPU).shape[1] == 2
    exported = study.export("best.yaml").path
    again = igkd_hpo.train(exported, allow_import="nets", progress=False)
    assert again.execution["memory_format"] == "contiguous"
    assert again.validation_accuracy == study.best.accuracy
