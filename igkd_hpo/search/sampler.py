"""Make Optuna's samplers by the study file's names."""

import numpy as np
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from igkd_hpo.config.study import Sampler


def make_sampler(config: Sampler, number: int) -> BaseSampler:
    """Make a sampler for the trial with this number.

    It is seeded by study and number: workers that share a seed would all draw the same points.
    """
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    if config.name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)
