"""The trained network of an ended trial, from its checkpoint on this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network


def kept_network(
    study: Study,
    assets: "Assets",
    settings: Settings,
    *,
    folder: str,
    number: int,
    hyperparameters: Mapping[str, Value],
    seed: int,
) -> "tuple[Network, float] | None":
    """Load a trial's network in evaluation mode on the CPU, and its validation accuracy (a fraction).

    Returns None where no checkpoint in the study's folder, by its name, holds the result of trial `number`, trained
    with `hyperparameters` and `seed`.
    """
    from igkd_hpo.trial.build import make_student
    from igkd_hpo.trial.checkpoint import checkpoint_mark, newest_checkpoint

    values = dict(hyperparameters)
    checkpoint = newest_checkpoint(
        settings.paths.trial_checkpoints(folder, number),
        fingerprint=checkpoint_mark(study, assets.pins),
        hyperparameters=values,
        seed=seed,
    )
    if checkpoint is None or checkpoint.result is None:
        return None
    network = make_student(study, values, assets, seed=seed).network
    network.body.load_state_dict(checkpoint.weights)
    return network.eval(), checkpoint.result
