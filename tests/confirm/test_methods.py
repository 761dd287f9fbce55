"""Every objective and every added term, from a study file through a trial to an exported file and its weights."""

from pathlib import Path

import pytest
import torch

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import Assets, open_assets, prepare_assets
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import create_or_open
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.trial.build import make_trial

CPU = torch.device("cpu")
STUDY = """
name: methods
dataset: {name: digits, test_fraction: 0.85, validation_fraction: 0.3}
teacher: {width: 0.25, epochs: 5, logits: online}
attribution: {n_steps: 2}
augmentation: {crop_padding: 0, horizontal_flip: false}
training: {epochs: 1}
hyperparameters:
  temperature: 2.0
  alpha: 0.5
  overlay_probability: 0.0
  overlay_strength: 0.5
  learning_rate: 0.05
  batch_size: 64
  layers_removed: 11
  width: 0.25
n_trials: 1
controls: []
"""
METHODS = [
    "objective: kd",
    "objective: dkd; dkd_beta: 3.0",
    "objective: {type: categorical, choices: [logit_standardization, kd]}",
    "objective: dist",
    "objective: r2kd",
    "attention_weight: 4.0; attention_depths: stages",
    "hint_weight: 1.0; width: 0.35",
    "teacher_tail_weight: 1.0; width: 0.35; alpha: 0.0",
    "attribution_weight: 0.5",
    "init: teacher_prefix",
    "init: teacher_prefix; frozen_blocks: 4",
    "objective: logit_mse",
    "objective: foster; foster_beta: 0.9",
    "osakd_weight: 1.0; osakd_neighbors: 8; alpha: 0.0",
    "rtk_weight: 1.0; width: 0.35",
    "skt_intra_weight: 0.5; skt_inter_weight: 0.5; width: 0.35",
    "attention_weight: 1.0; hint_weight: 1.0; teacher_tail_weight: 1.0; attribution_weight: 1.0; objective: dist",
]


def with_method(method: str) -> str:
    """The study file with the keys of the method, which replace those that are there."""
    lines = STUDY.splitlines()
    for key in method.split("; "):
        name = f"  {key.partition(':')[0]}:"
        lines = [line for line in lines if not line.startswith(name)]
        lines.insert(lines.index("hyperparameters:") + 1, f"  {key}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Where the assets are, made once for all methods."""
    root = tmp_path_factory.mktemp("methods") / "storage"
    settings = Settings(
        paths=Paths(root=root), storage_url="sqlite:///unused.db", data_root=root, allow_import=frozenset()
    )
    study = parse_study(with_method("attribution_weight: 1.0"), source="-")
    prepare_assets(study, settings, device="cpu", progress=SilentProgress())
    return settings


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_with_it_runs_from_study_file_to_export(
    method: str, settings: Settings, storage: SharedStorage, tmp_path: Path
) -> None:
    study = parse_study(with_method(method), source="study.yaml")
    assets: Assets = open_assets(study, settings)
    pins = AssetPins(dataset_sha256=assets.dataset.sha256, teacher_sha256=assets.teacher_sha256)
    searched = create_or_open(storage, study, n_trials=None, pins=pins)
    leases = Leases(searched)
    claim = leases.claim(Worker(name="worker-0", process=this_process()))
    assert isinstance(claim, Claim)
    trial = make_trial(study, claim.hyperparameters, assets, seed=claim.seed, device=CPU)
    assert leases.start(claim, this_process(), "cpu")
    (metrics,) = trial.training.epochs()
    leases.report(claim, epoch=1, accuracy=metrics.validation_accuracy)
    facts = {
        "execution": trial.execution.model_dump(mode="json"),
        "parameters": count_parameters(trial.training.network),
    }
    assert leases.complete(claim, metrics.validation_accuracy, facts)

    exported = exported_study(searched, best_trial(searched))
    again = parse_study(to_yaml(exported), source="best.yaml")
    assert again.hyperparameters.fixed() == claim.hyperparameters
    assert not again.is_search
    # What is kept is a student as any other: no adapter, no part of the teacher.
    width = float(claim.hyperparameters["width"])
    plain = mobilenet_v2(num_classes=10, width=width, layers_removed=11)
    plain.load_state_dict(trial.training.network.body.state_dict(), strict=True)
    assert count_parameters(trial.training.network) == count_parameters(plain)
