"""Which sampler, by experiment: simulated searches whose best is known, by four workers, with and without pruning.

    python benchmarks/samplers.py [--studies 8] [--trials 60] [--check]

Each study searches six hyperparameters of a study file; how good a configuration is follows from a landscape that is
drawn anew: one best place, two settings that depend on each other, a slope on a log scale, and a word that matters.
A trial shows that value with the noise of a seed. With pruning, two of three trials end as PRUNED, as successive
halving leaves them: those that are worse than the best third so far. The figure is the regret, in points: how far the
true value of the configuration that looks best is below the best there is. What this leaves out: real trainings.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from statistics import fmean, stdev

import numpy as np
import optuna
from optuna.trial import TrialState
from pydantic import TypeAdapter

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.sampler import Sampler
from igkd_hpo.search.space import distributions
from igkd_hpo.search.suggest import make_sampler

WORKERS, NOISE = 4, 0.4  # points, one standard deviation between seeds
SAMPLERS = ("tpe", "gp", "qmc", "random", "grid")
SPACE = {
    "temperature": {"type": "float", "low": 1.0, "high": 8.0},
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
    "overlay_probability": 0.1,
    "overlay_strength": 0.5,
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1.0, "log": True},
    "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "int", "low": 32, "high": 256, "step": 32},
    "objective": {"type": "categorical", "choices": ("kd", "dist", "dkd")},
}
GRID = SPACE | {  # three values each, as one would write it
    "temperature": {"type": "categorical", "choices": (2.0, 4.0, 6.0)},
    "alpha": {"type": "categorical", "choices": (0.2, 0.5, 0.8)},
    "learning_rate": {"type": "categorical", "choices": (0.01, 0.05, 0.25)},
    "weight_decay": {"type": "categorical", "choices": (1e-4, 1e-3)},
    "batch_size": {"type": "categorical", "choices": (64, 128)},
}


def landscape(random: np.random.Generator) -> Callable[[dict[str, object]], float]:
    """Draw how many points a configuration is below the best."""
    rate, decay, alpha, warmth = random.uniform([-2.5, -4.5, 0.2, 2], [-0.5, -2.5, 0.8, 7])
    words = dict(zip(("kd", "dist", "dkd"), random.permutation([0.0, 0.8, 2.0]), strict=True))

    def below(params: dict[str, object]) -> float:
        rates = np.log10(float(params["learning_rate"])) - rate  # type: ignore[arg-type]
        batch = np.log2(float(params["batch_size"]) / 128)  # type: ignore[arg-type]
        mixed = 4 * (float(params["alpha"]) - alpha) + (float(params["temperature"]) - warmth) / 3  # type: ignore[arg-type]
        decays = np.log10(float(params["weight_decay"])) - decay  # type: ignore[arg-type]
        known = 3.0 * (rates - 0.3 * batch) ** 2 + 0.4 * decays**2 + 0.8 * mixed**2 + 0.2 * batch**2
        return float(min(known, 60.0) + words[str(params["objective"])])

    return below


def search(name: str, seed: int, trials: int, *, pruned: bool) -> tuple[list[float], float]:
    """Return the regret after each trial, and the seconds of CPU that the sampler took for one."""
    space = Hyperparameters.model_validate(GRID if name == "grid" else SPACE)
    sampler: Sampler = TypeAdapter(Sampler).validate_python({"name": name, "seed": seed})
    random = np.random.default_rng(seed)
    below, given = landscape(random), distributions(space)
    study = optuna.create_study(direction="maximize")
    running: list[tuple[optuna.Trial, dict[str, object]]] = []
    regrets, shown, took = [], [], 0.0
    best = (-np.inf, np.inf)
    for number in range(trials + WORKERS - 1):
        if number < trials:
            begun = time.process_time()
            study.sampler = make_sampler(sampler, space, number)
            trial = study.ask(given)
            took += time.process_time() - begun
            running.append((trial, dict(trial.params)))
        if len(running) < WORKERS and number < trials:
            continue
        trial, params = running.pop(0)
        truth = below(params)
        value = -truth + NOISE * random.standard_normal()
        bar = np.quantile(shown, 2 / 3) if len(shown) >= 3 else -np.inf
        shown.append(value)
        if pruned and value < bar:
            trial.report(value, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
            best = max(best, (value, truth))
        regrets.append(best[1])
    return regrets, took / trials


def main() -> int:
    """Print the regrets; with --check end with 1 where the default is worse than chance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    marks = [options.trials // 3, options.trials * 2 // 3, options.trials]
    last = {}
    print("sampler  pruning  " + "  ".join(f"after {mark:3d} trials" for mark in marks) + "  CPU s a trial")
    for pruned in (False, True):
        for name in SAMPLERS:
            found = [search(name, seed, options.trials, pruned=pruned) for seed in range(options.studies)]
            columns = []
            for mark in marks:
                values = [regrets[mark - 1] for regrets, _ in found]
                half = 2 * stdev(values) / len(values) ** 0.5
                columns.append(f"{fmean(values):5.2f} +- {half:4.2f}  ")
                last[name, pruned] = fmean(values)
            seconds = fmean(took for _, took in found)
            print(f"{name:<8} {'yes' if pruned else 'no':<7}  {'  '.join(columns)}  {seconds:.3f}", flush=True)
    worse = [pruned for pruned in (False, True) if last["tpe", pruned] >= last["random", pruned]]
    return int(options.check and bool(worse))


if __name__ == "__main__":
    sys.exit(main())
