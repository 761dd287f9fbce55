"""Control trials: fixed configurations that a study runs first, for reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.space import Value, WordChoices
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, weights

PLAIN: dict[str, Value] = {
    name: declared.off
    for name, declared in HYPERPARAMETERS.items()
    if declared.off is not None and declared.role in (Role.LOGITS, Role.MAPS, Role.FEATURES)
}
"""Plain training without a teacher; each control adds the techniques that it is named for."""
ControlName = Literal["student", "kd", "ig", "kd_ig", "at", "kd_at", "ig_at", "kd_ig_at", "paper"]
_KD: dict[str, Value] = {"alpha": 0.9, "temperature": 4.0}
_IG: dict[str, Value] = {"overlay_probability": 0.1, "overlay_strength": 0.5}
# The usual weight, 1000 of the mean over positions, at the 8x8 positions of the paper's student; see terms/attention.
_AT: dict[str, Value] = {"attention_weight": 16.0}
_DEFINED_BY: dict[ControlName, dict[str, Value]] = {
    "student": PLAIN,
    "kd": PLAIN | _KD,
    "ig": PLAIN | _IG,
    "kd_ig": PLAIN | _KD | _IG,
    "at": PLAIN | _AT,
    "kd_at": PLAIN | _KD | _AT,
    "ig_at": PLAIN | _IG | _AT,
    "kd_ig_at": PLAIN | _KD | _IG | _AT,
    "paper": PLAIN | _IG | {"alpha": 0.01, "temperature": 2.5},
}


def controls_using(role: Role) -> frozenset[ControlName]:
    """Return the controls that ask for this of the teacher."""
    return frozenset(
        name for name, values in _DEFINED_BY.items() if any(values[weight] != PLAIN[weight] for weight in weights(role))
    )


def replaced(values: Mapping[str, Value], by: Mapping[str, Value]) -> dict[str, Value]:
    """Return hyperparameters with some replaced, but for words that ask nothing of the teacher."""
    return {**values, **{key: value for key, value in by.items() if values[key] not in HYPERPARAMETERS[key].kept}}


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control trial.

    Args:
        hyperparameters: all of them, as the trial trains.
        params: the searched ones as Optuna stores them, see `in_ranges`.
    """

    name: ControlName
    hyperparameters: dict[str, Value]
    params: dict[str, Value]


def make_control(name: ControlName, hyperparameters: Hyperparameters) -> Control:
    """Make a control of a study with these hyperparameters.

    What does not define the control is taken from the study file, the middle of the range where it is searched.
    """
    values = replaced(hyperparameters.middle(), _DEFINED_BY[name])
    return Control(name=name, hyperparameters=values, params=in_ranges(hyperparameters, values))


def in_ranges(hyperparameters: Hyperparameters, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the searched ones of `values` as Optuna stores them: the nearest point of each range.

    So the sampler learns from the trial and never sees a value outside its space.
    """
    params: dict[str, Value] = {}
    for key, setting in hyperparameters.searched().items():
        value = values[key]
        if isinstance(setting, WordChoices):
            params[key] = setting.nearest(str(value))
        else:
            assert not isinstance(value, str), f"{key} is a number"
            params[key] = setting.nearest(value)
    return params
