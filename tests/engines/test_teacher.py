"""A teacher that ends its process, or runs in one layout of memory alone, is found out before it is trained."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

import igkd_hpo
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.engines.local.teacher import try_teacher
from igkd_hpo.errors import TeacherError
from igkd_hpo.settings import Settings
from tests.assets.conftest import RecordingProgress, make_study
from tests.fixtures.networks import dataset_of, network_settings

CPU = torch.device("cpu")
settings = network_settings


def study_of(teacher: str, settings: Settings, **hyperparameters: Any) -> Study:
    """A study whose teacher is trained here, from weights in a file."""
    begin = "nets:halving" if teacher == "nets:halving" else "nets:plain"
    request = Request(name=begin, num_classes=5, image_size=(8, 8), allow_import=settings.allow_import)
    torch.save(find_architecture(begin).build(request).state_dict(), Path(settings.data_root) / "begin.pt")
    return make_study(
        teacher={
            "architecture": teacher,
            "weights": "begin.pt",
            "epochs": 12,
            "learning_rate": 0.5,
            "normalize": "dataset",
        },
        training={"epochs": 1},
        augmentation={"horizontal_flip": False},
        controls=["kd_ig"],
        n_trials=1,
        hyperparameters={"architecture": "nets:plain", **hyperparameters},
    )


def test_one_that_runs_in_contiguous_memory_alone_is_trained_explained_and_asked_so(
    settings: Settings,
) -> None:
    """It raises in the other layout wherever it is run: in training, in its checks, for maps, logits and features."""
    study_file = study_of("nets:halving", settings, hint_weight=1.0)
    study = igkd_hpo.launch(study_file, allow_import="nets", engine="in_process", progress=False)
    assert [trial.state for trial in study.trials] == ["COMPLETE"]
    teacher = open_assets(study_file, settings).teachers.members[0]
    assert teacher.network.memory_format is torch.contiguous_format


def test_one_that_ends_its_process_ends_none_of_ours(settings: Settings) -> None:
    study, progress = study_of("nets:crashing", settings), RecordingProgress()
    refuse_untrainable(study, settings, device="cpu", progress=progress)
    (note,) = progress.notes
    assert "SIGSEGV" in note
    with closing(ForkServer()) as server:
        found = try_teacher(study, dataset_of(study, settings), settings, CPU, progress, server)
    assert found is not None
    assert found.memory_format == "contiguous"
    tried = [task for task in progress.tasks if "teacher" in task]
    assert len(tried) == 1  # not again


def test_one_that_fails_whatever_the_layout_is_refused_before_it_is_trained(settings: Settings) -> None:
    study = study_of("nets:raising", settings)
    with pytest.raises(TeacherError, match=r"nets:raising .*KeyError"):
        refuse_untrainable(study, settings, device="cpu", progress=RecordingProgress())
    kinds = {asset.folder.name.rpartition("-")[0] for asset in AssetStore(settings.paths.assets).finished()}
    assert kinds == {"dataset", "test-split"}
