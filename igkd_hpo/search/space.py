"""Translate the study file's ranges into Optuna's distributions, in one fixed order."""

from decimal import Decimal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.space import Choices, FloatRange, IntRange, Range, Value, WordChoices


def distributions(hyperparameters: Hyperparameters) -> dict[str, BaseDistribution]:
    """Return the distributions of the searched hyperparameters by name, in the order of the study file's class."""
    return {name: _distribution(setting) for name, setting in hyperparameters.searched().items()}


def as_setting(setting: Range, value: Value) -> Value:
    """Return a value of Optuna's in the type that the study file means."""
    match setting:
        case FloatRange():
            return float(value)
        case IntRange():
            return int(value)
        case Choices() | WordChoices():
            return next(choice for choice in setting.choices if choice == value)


def _distribution(setting: Range) -> BaseDistribution:
    match setting:
        case FloatRange(low=low, high=high, log=log, step=step):
            return FloatDistribution(low, high if step is None else _last_point(low, high, step), log=log, step=step)
        case IntRange(low=low, high=high, log=log, step=step):
            return IntDistribution(low, high - (high - low) % step, log=log, step=step)
        case Choices(choices=choices) | WordChoices(choices=choices):
            return CategoricalDistribution(choices)


def _last_point(low: float, high: float, step: float) -> float:
    # In decimal, as Optuna does it: 0.3 / 0.1 is below 3 in binary. Optuna warns when `high` is not on the grid.
    span, width = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
    return float(Decimal(str(low)) + span // width * width)
