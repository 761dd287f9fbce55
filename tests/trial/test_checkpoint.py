"""Which checkpoint of earlier attempts belongs to a trial."""

from pathlib import Path

import pytest
import torch

from igkd_hpo.config.space import Value
from igkd_hpo.distillation.metrics import EpochMetrics
from igkd_hpo.trial.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint

METRICS = EpochMetrics(
    epoch=1, train_loss=1.0, validation_accuracy=0.5, validation_loss=1.0, learning_rate=0.1, images_per_second=1.0,
    seconds=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "asked", "belongs"),
    [
        ({"alpha": 0.5}, {"alpha": 0.5}, True),
        ({"alpha": 0.5}, {"alpha": 0.5, "class_weights": "none"}, True),  # it is from before there were class weights
        ({"alpha": 0.5}, {"alpha": 0.5, "class_weights": "balanced"}, False),
        ({"alpha": 0.5}, {"alpha": 0.6}, False),
    ],
)
def test_hyperparameters_that_came_later_were_at_their_defaults(
    kept: dict[str, Value], asked: dict[str, Value], belongs: bool, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(
        fingerprint="f",
        hyperparameters=kept,
        seed=3,
        training=None,
        weights={"w": torch.zeros(1)},
        metrics=(METRICS,),
        result=0.5,
    )
    save_checkpoint(tmp_path / "attempt-1.pt", checkpoint)
    found = newest_checkpoint(tmp_path, fingerprint="f", hyperparameters=asked, seed=3)
    assert (found is not None) == belongs
