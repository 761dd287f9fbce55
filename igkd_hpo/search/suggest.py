"""Choose all hyperparameters of a trial at once, from the sampler or from whoever enqueued the trial."""

import warnings
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from igkd_hpo.config.cost import STRATUM
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.sampler import GpSampler, GridSampler, QmcSampler, RandomSampler, Sampler, TpeSampler
from igkd_hpo.config.space import Value
from igkd_hpo.config.strata import Stratum
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.optuna_internals import id_of
from igkd_hpo.search.redraw import DRAWS, Redraw, TooLarge
from igkd_hpo.search.space import as_setting, distributions
from igkd_hpo.search.strata import see_from
from igkd_hpo.search.study import SearchStudy, ended_trials
from igkd_hpo.search.view import view_study


class UnusableTrial(Exception):
    """A trial that somebody enqueued with values that cannot be trained."""


def suggest(
    study: SearchStudy, frozen: FrozenTrial, trials: Sequence[FrozenTrial], stratum: Stratum | None = None
) -> dict[str, Value]:
    """Return all hyperparameters that a RUNNING trial trains with, in the order of the study file's class.

    What the trial has already is kept. All are drawn before the trial can be pruned: one PRUNED trial without
    a parameter would take that parameter out of the multivariate sampler for good.

    Args:
        trials: of the study, as the sampler sees them: nothing is read again. This one need not be among them.
        stratum: that the trial is drawn for.

    Raises:
        UnusableTrial: it was enqueued with a value that the study cannot use.
    """
    hyperparameters = study.config.hyperparameters
    searched = hyperparameters.searched()
    enqueued = frozen.system_attrs.get("fixed_params", {})
    if unknown := sorted(enqueued.keys() - searched.keys()):
        raise UnusableTrial(f"enqueued with {', '.join(unknown)}, which this study does not search")
    trial = optuna.Trial(_study_to_draw_in(study, frozen.number, trials, stratum), id_of(frozen))
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


def make_sampler(config: Sampler, hyperparameters: Hyperparameters, number: int) -> BaseSampler:
    """Make a sampler for the trial with this number.

    It is seeded by study and number: workers that share a seed would all draw the same points. Only what the whole
    study has in common, a sequence or the order of a grid, is seeded by the study alone.
    """
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match config:
            case TpeSampler():
                return optuna.samplers.TPESampler(seed=seed, **_options(config))
            case GpSampler():
                return optuna.samplers.GPSampler(seed=seed, **_options(config))
            case QmcSampler():
                first = optuna.samplers.RandomSampler(seed)  # of trials that begin before any has ended
                return optuna.samplers.QMCSampler(seed=config.seed, independent_sampler=first, **_options(config))
            case RandomSampler():
                return optuna.samplers.RandomSampler(seed)
            case GridSampler():
                points = {name: list(setting.points() or ()) for name, setting in hyperparameters.searched().items()}
                return optuna.samplers.GridSampler(points, seed=config.seed)


def _options(config: Sampler) -> dict[str, Any]:
    return {name: value for name, value in config if name not in ("name", "seed")}


def _study_to_draw_in(
    study: SearchStudy, number: int, trials: Sequence[FrozenTrial], stratum: Stratum | None
) -> optuna.Study:
    """Return Optuna's study with the sampler of a trial; for a stratum, with the other trials as seen from there."""
    sampler = _sampler_for(study, number, trials, stratum)
    if stratum is not None:
        settings = study.config.hyperparameters
        sampler = Redraw(
            sampler,
            _chance(study, number),
            settings,
            TooLarge(stratum, trials, settings),
            draws=1 if study.config.sampler.name == "gp" else DRAWS,  # it takes seconds, and would draw much the same
        )

    def see(states: Container[TrialState] | None) -> list[FrozenTrial]:
        found = [trial for trial in trials if states is None or trial.state in states]
        return found if stratum is None else see_from(stratum, found)

    return view_study(study, see, sampler)


def _sampler_for(
    study: SearchStudy, number: int, trials: Sequence[FrozenTrial], stratum: Stratum | None
) -> BaseSampler:
    """Make the study's sampler; a random one after a trial beyond a limit for those that do not learn from it.

    Of what it has learned nothing has changed then, and it would propose much the same again.
    """
    config = study.config
    if config.sampler.name == "gp" and (config.limits.any or config.strata is not None):
        end = None if stratum is None else stratum.end
        ended = [trial for trial in ended_trials(trials) if trial.user_attrs.get(STRATUM) == end]
        if ended and is_infeasible(ended[-1]):
            return _chance(study, number)
    return make_sampler(config.sampler, config.hyperparameters, number)


def _chance(study: SearchStudy, number: int) -> BaseSampler:
    config = study.config
    return make_sampler(RandomSampler(name="random", seed=config.sampler.seed), config.hyperparameters, number)


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
