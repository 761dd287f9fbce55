"""Strata against none on made-up trainings: the whole search with its pruner and database, students of true sizes.

    python benchmarks/simulated_strata.py [--studies 8] [--trials 40] [--ends 20000 100000 2000000]

The built-in network in 15 depths and widths from 0.25 to 1. What a student can reach grows with the logarithm of its
size; how near it comes follows from learning rate and temperature, whose best values are the same for all sizes and
drawn anew for each search; a seed has noise of one point. Told for each size, with twice the standard error: how many
trials were trained there, and how many points the best of them is truly below the best there is. What this leaves out:
real trainings, and best learning rates that depend on the size.
"""

import argparse
import math
import sys
import tempfile
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from optuna.trial import TrialState

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.strata import Strata
from igkd_hpo.config.study import Study
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.trial.student import count_cost

EPOCHS, NOISE = 12, 0.01
SPACE = {
    "temperature": {"type": "float", "low": 1.0, "high": 8.0},
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
    "overlay_probability": 0.0,
    "overlay_strength": 0.0,
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1.0, "log": True},
    "layers_removed": {"type": "int", "low": 1, "high": 15},
    "width": {"type": "float", "low": 0.25, "high": 1.0},
}


@cache
def size_of(layers_removed: int, eighths: int) -> int:
    """Count the parameters of a student whose channels are of so many eighths of a percent of the width."""
    values = {"architecture": "mobilenet_v2", "layers_removed": layers_removed, "width": eighths / 80}
    return int(count_cost("parameters", values, 10, (8, 8), allow_import=frozenset()))


def reach(size: float) -> float:
    """Return the accuracy that a student of this size comes to with the best settings."""
    return 0.95 - 0.4 * math.exp(-0.75 * math.log10(size / 1000))


def play(study: SearchStudy, seed: int) -> dict[int, float]:
    """Run a search, and return how far each COMPLETE trial truly is below the most accurate student of its size."""
    random = np.random.default_rng(seed)
    rate, warmth = random.uniform([-2.2, 2.0], [-0.8, 7.0])
    leases, worker = Leases(study), Worker(name="simulated", process=this_process())
    below: dict[int, float] = {}
    while isinstance(claim := leases.claim(worker), Claim):
        values = claim.hyperparameters
        size = size_of(int(values["layers_removed"]), round(80 * float(values["width"])))
        over = 0.0 if claim.stratum is None else claim.stratum.excess(size)
        leases.annotate(claim, {"parameters": size}, excess={} if claim.stratum is None else {"stratum": over})
        if over > 0:
            leases.prune(claim, "beyond its stratum", {})
            continue
        lost = 0.03 * (math.log10(float(values["learning_rate"])) - rate) ** 2
        lost += 0.02 * ((float(values["temperature"]) - warmth) / 3) ** 2
        end = reach(size) - lost + NOISE * random.standard_normal()
        for epoch in range(1, EPOCHS + 1):
            shown = end - 0.4 * math.exp(-epoch / 4) + 0.3 * NOISE * random.standard_normal()
            shown = min(max(end if epoch == EPOCHS else shown, 0.0), 1.0)
            if leases.report(claim, epoch=epoch, accuracy=shown) is Verdict.PRUNE:
                leases.prune(claim, leases.why_pruned(claim), {})
                break
        else:
            leases.complete(claim, shown, {})
            below[claim.number] = lost
    return below


def main() -> int:
    """Print what each arm has in each stratum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--ends", type=float, nargs="+", default=[20e3, 100e3, 2e6])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    strata = Strata(of="parameters", at=tuple(options.ends))
    digits = read_study(builtin_studies()["digits"]).model_dump()
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.studies):
            for arm, given in (("none", None), ("strata", strata)):
                file = digits | {"name": f"{arm}-{seed}", "n_trials": options.trials, "controls": (), "strata": given}
                file |= {"hyperparameters": SPACE, "sampler": {"name": "tpe", "seed": seed}}
                file |= {"training": digits["training"] | {"epochs": EPOCHS}}
                storage = open_storage(f"sqlite:///{Path(folder) / file['name']}.db", create=True)
                study = create_or_open(storage, Study.model_validate(file), n_trials=None, pins=None)
                below = play(study, seed)
                trained = [trial for trial in study.trials() if trial.intermediate_values]
                found[arm, "beyond"].append(len(study.trials()) - len(trained))
                found[arm, "epochs"].append(sum(len(trial.intermediate_values) for trial in trained))
                for one in strata.each:
                    within = [t for t in trained if strata.holding(t.user_attrs["parameters"]) == one]
                    found[arm, f"{one}: trained"].append(len(within))
                    fit = [t for t in trained if t.state is TrialState.COMPLETE]
                    fit = [t for t in fit if t.user_attrs["parameters"] <= one.end]
                    best = max(fit, key=lambda t: t.value or 0, default=None)
                    if best is None:
                        found[arm, f"{one}: without any"].append(1)
                        continue
                    truth = reach(best.user_attrs["parameters"]) - below[best.number]
                    found[arm, f"{one}: points lost"].append(100 * (reach(one.end) - truth))
                storage.engine.dispose()
    for (arm, what), values in sorted(found.items()):
        spread = 2 * stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        print(f"{arm:6s} {what:45s} {fmean(values):7.2f} +- {spread:5.2f}  (n {len(values)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
