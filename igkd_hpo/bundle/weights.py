"""Network of a bundle: the one that the trial trained, or the same training done once more."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.search.best import BestTrial
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network


def trained_network(
    study: SearchStudy, best: BestTrial, exported: Study, assets: "Assets", settings: Settings, progress: Progress
) -> "tuple[Network, float, str]":
    """Return the network in evaluation mode on the CPU, its validation accuracy (a fraction), and its origin."""
    import torch

    from igkd_hpo.trial.build import make_student

    values = dict(best.hyperparameters)
    kept = kept_network(study.config, assets, settings, number=best.number, hyperparameters=values, seed=best.seed)
    if kept is not None:
        return *kept, f"the checkpoint of trial {best.number}"

    from igkd_hpo.trial.train import train_student

    progress.note(f"the checkpoint of trial {best.number} is not in {settings.paths.checkpoints}: it is trained again")
    with tempfile.TemporaryDirectory() as folder:
        again = train_student(
            exported, settings, seed=None, device="auto", evaluate=None, output=Path(folder), progress=progress
        )
        network = make_student(study.config, values, assets, seed=best.seed)
        network.body.load_state_dict(torch.load(Path(folder, "student.pt"), map_location="cpu", weights_only=True))
    origin = f"the training of trial {best.number}, done again with the same seed"
    return network.eval(), again.validation_accuracy, origin
