"""Whether a search can tell that more of it brings nothing, by experiment: rules against an oracle.

    python benchmarks/stopping.py benchmarks/curves/digits.jsonl [--studies 40] [--trials 100]

Searches are those of `benchmarks/samplers.py` by TPE, and recorded trainings in random orders. The oracle knows the
truth: it stops at the first trial from which on what looks best is never more than the noise between seeds below
what the whole search finds. A rule sees the noisy values alone, and the noise, as from many repeats:

- patience K: K trials in a row without a gain larger than the noise;
- model: the spread of TPE's better quarter, which it samples from, is below the noise, after 20 trials;
- records: by the rate of gains so far the next N/10 trials are expected to bring less than the noise.

A stop is right within a tenth of the trials of the oracle's. Early is what it costs: points below the whole search.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
from pruners import Curves, seed_noise
from samplers import NOISE, SPACE, landscape

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.sampler import TpeSampler
from igkd_hpo.search.space import distributions
from igkd_hpo.search.suggest import make_sampler

Rule = Callable[[Sequence[float], float, int], bool]


def patience(k: int) -> Rule:
    """Stop after k trials in a row without a gain above the noise."""
    return lambda shown, noise, trials: len(shown) > k and max(shown) < max(shown[:-k]) + noise


def model(shown: Sequence[float], noise: float, trials: int) -> bool:
    """Stop where the better quarter of the newest 20 differs by less than the noise."""
    newest = sorted(shown[-20:])[-5:]
    return len(shown) >= 20 and newest[-1] - newest[0] < noise


def records(shown: Sequence[float], noise: float, trials: int) -> bool:
    """Stop where gains of the newest half, extrapolated, bring less than the noise in a tenth of the trials."""
    half = len(shown) // 2
    if half < 5:
        return False
    return (max(shown) - max(shown[:half])) / (len(shown) - half) * trials / 10 < noise / 4


RULES: dict[str, Rule] = {f"patience {k}": patience(k) for k in (10, 20, 30, 50)} | {"model": model, "records": records}


def simulated(seed: int, trials: int) -> tuple[list[float], list[float]]:
    """Return what a search by TPE sees and the truth of it, in points, by trial."""
    random, space = np.random.default_rng(seed), Hyperparameters.model_validate(SPACE)
    below, given = landscape(random), distributions(space)
    study = optuna.create_study(direction="maximize")
    shown, truths = [], []
    for number in range(trials):
        study.sampler = make_sampler(TpeSampler(seed=seed), space, number)
        trial = study.ask(given)
        truths.append(-below(trial.params))
        shown.append(truths[-1] + NOISE * random.standard_normal())
        study.tell(trial, shown[-1])
    return shown, truths


def incumbents(shown: Sequence[float], truths: Sequence[float]) -> list[float]:
    """Return the truth of the one that looks best, after each trial."""
    return [truths[int(np.argmax(shown[: number + 1]))] for number in range(len(shown))]


def oracle(shown: Sequence[float], truths: Sequence[float], noise: float) -> int:
    """Return after how many trials nothing is left to gain beyond the noise."""
    held = incumbents(shown, truths)
    short = [number for number, truth in enumerate(held) if truth < held[-1] - noise]
    return short[-1] + 2 if short else 1


def judge(searches: Sequence[tuple[list[float], list[float]]], noise: float, where: str) -> None:
    """Print for each rule where it stops, how often that is right, and what it costs."""
    stops = [oracle(shown, truths, noise) for shown, truths in searches]
    spread = np.quantile(stops, [0.1, 0.5, 0.9]).round()
    print(f"{where}: {len(searches)} searches; the oracle stops after {spread} trials (10, 50, 90 %)")
    for name, rule in RULES.items():
        right, used, lost = [], [], []
        for (shown, truths), best in zip(searches, stops, strict=True):
            trials, held = len(shown), incumbents(shown, truths)
            stop = next((n for n in range(1, trials) if rule(shown[:n], noise, trials)), trials)
            right.append(abs(stop - best) <= trials / 10)
            used.append(stop / trials)
            lost.append(held[-1] - held[stop - 1])
        worst = float(np.quantile(lost, 0.9))
        print(
            f"  {name:<12} right {fmean(right):4.0%}  trials {fmean(used):4.0%}  early {fmean(lost):5.2f} points, "
            f"{worst:.2f} in one of ten"
        )


def main() -> int:
    """Judge the rules on simulated and recorded searches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", type=Path)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    judge([simulated(seed, options.trials) for seed in range(options.studies)], NOISE, "simulated, TPE")
    lines = Curves.read(options.curves).lines
    spread = 100 * seed_noise(lines)[0]
    finals = {number: [] for number in {line.configuration for line in lines}}
    for line in lines:
        finals[line.configuration].append(100 * line.final)
    random, searches = np.random.default_rng(0), []
    for _ in range(options.studies):
        order = random.permutation(sorted(finals))
        searches.append(([float(random.choice(finals[n])) for n in order], [fmean(finals[n]) for n in order]))
    judge(searches, spread, f"recorded, in random orders, noise {spread:.2f} points")
    return 0


if __name__ == "__main__":
    sys.exit(main())
