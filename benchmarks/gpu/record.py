"""How accurate a student of the paper's size is after 30 seconds of training, one after the other, from cached assets.

RECORD_RUNS (`arm:batch`, with commas) says what is trained; a short training of the same kind says how many epochs fit.
The seconds are those of `Training.epochs()`, validation after each epoch included; making the trial, its graph
included, is told beside them. The test split is looked at once for each run.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

import kit
import torch

from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.trial.build import make_trial

SECONDS = float(os.environ.get("RECORD_SECONDS") or (2 if kit.SMALL else 30))
RUNS = os.environ.get("RECORD_RUNS") or ("kd:32" if kit.SMALL else "kd:256,kd:512")
SHARE = 0.97  # of the seconds is planned for
ROUND = SECONDS + 12  # what a run takes with all around it


def train(arm: str, batch: int, epochs: int, seed: int, most: float | None) -> dict[str, Any]:
    """One training, and its epochs' seconds; with `most`, ended after so many, and tested."""
    study = kit.study_of(arm, epochs=epochs, batch_size=batch)
    settings, device = kit.settings(), kit.device()
    begun = time.perf_counter()
    trial = make_trial(study, study.hyperparameters.fixed(), open_assets(study, settings), seed=seed, device=device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    ready = time.perf_counter()
    each, curve = [], []
    for epoch in trial.training.epochs():
        each.append(epoch.seconds)
        curve.append(round(epoch.validation_accuracy, 4))
        if most is not None and time.perf_counter() - ready > most:
            break
    seconds = time.perf_counter() - ready
    found: dict[str, Any] = {
        "arm": arm, "batch": batch, "seed": seed, "epochs_planned": epochs, "epochs": len(each),
        "setup_seconds": round(ready - begun, 2), "seconds": round(seconds, 2),
        "epoch_seconds": round(statistics.median(each[1:] or each), 4), "compile": trial.training.compile,
        "precision": trial.training.recipe.precision, "learning_rate": trial.training.recipe.learning_rate,
        "parameters": count_parameters(trial.training.network),
    }  # fmt: skip
    if most is not None:
        pictures, labels = open_test(study.dataset, settings, purpose=TestPurpose.BENCHMARK)
        right = accuracy(predict(trial.training.network, pictures, device=device), labels)
        found |= {"test_accuracy": right, "n_test": len(labels), "validation": curve}
    return found


def main() -> int:
    """The command."""
    keep_freed_memory()
    if kit.DEVICE == "cpu":
        torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    target = kit.OUT / "record30.json"
    for number, item in enumerate(RUNS.split(",")):
        arm, _, batch = item.partition(":")
        if kit.left() < ROUND:
            print(f"no time for {item}: {kit.left():.0f} s are left", flush=True)
            break
        pilot = train(arm, int(batch), 2 if kit.SMALL else 4, 1000, None)
        epochs = max(1, int(SHARE * SECONDS / pilot["epoch_seconds"]))
        print(f"{item}: {pilot['epoch_seconds']} s an epoch, so {epochs} epochs", flush=True)
        runs.append(train(arm, int(batch), epochs, number, SECONDS))
        target.write_text(json.dumps({"hardware": kit.hardware(), "seconds": SECONDS, "runs": runs}, indent=1))
        print(json.dumps(runs[-1]), flush=True)
    return int(not runs)


if __name__ == "__main__":
    sys.exit(main())
