"""Choose all hyperparameters of a trial at once, from the sampler or from whoever enqueued the trial."""

import warnings

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial
from pydantic import ValidationError

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.sampler import Sampler
from igkd_hpo.config.space import Value
from igkd_hpo.search.optuna_internals import id_of
from igkd_hpo.search.space import as_setting, distributions
from igkd_hpo.search.study import SearchStudy


class UnusableTrial(Exception):
    """A trial that somebody enqueued with values that cannot be trained."""


def suggest(study: SearchStudy, frozen: FrozenTrial) -> dict[str, Value]:
    """Return all hyperparameters that a RUNNING trial trains with, in the order of the study file's class.

    What the trial has already is kept. All are drawn before the trial can be pruned: one PRUNED trial without
    a parameter would take that parameter out of the multivariate sampler for good.

    Raises:
        UnusableTrial: it was enqueued with a value that the study cannot use.
    """
    hyperparameters = study.config.hyperparameters
    searched = hyperparameters.searched()
    enqueued = frozen.system_attrs.get("fixed_params", {})
    if unknown := sorted(enqueued.keys() - searched.keys()):
        raise UnusableTrial(f"enqueued with {', '.join(unknown)}, which this study does not search")
    sampler = make_sampler(study.config.sampler, frozen.number)
    trial = optuna.Trial(optuna.Study(study.name, study.storage, sampler, study.pruner), id_of(frozen))
    values = hyperparameters.fixed()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # enqueued outside the range: allowed, as everywhere in Optuna
            for name, distribution in distributions(hyperparameters).items():
                values[name] = as_setting(searched[name], _suggest(trial, name, distribution))
        values |= frozen.user_attrs.get("hyperparameters", {})  # controls may lie outside the ranges
        values = {name: values[name] for name in Hyperparameters.model_fields}
        Hyperparameters.model_validate(values)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors(include_url=False)]
        raise UnusableTrial(f"enqueued with values that cannot be trained: {'; '.join(faults)}") from error
    except (OverflowError, TypeError, ValueError) as error:  # a whole number that no float is
        raise UnusableTrial(f"enqueued with values that do not fit the study: {error}") from error
    return values


def make_sampler(config: Sampler, number: int) -> BaseSampler:
    """Make a sampler for the trial with this number.

    It is seeded by study and number: workers that share a seed would all draw the same points.
    """
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    if config.name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Value:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case optuna.distributions.CategoricalDistribution(choices=choices):
            value = trial.suggest_categorical(name, choices)
            assert isinstance(value, int | float | str), "the study file's choices are numbers or words"
            return value
        case _:
            raise AssertionError(f"{distribution} is not made by space.py")
