"""Trials that people enqueue with Optuna: they run and count, also where enough others have finished."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.space import FloatRange, IntRange, shown, shown_range


def enqueued_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that wait because somebody enqueued them by hand: neither the study file nor the search did."""
    waiting = [trial for trial in trials if trial.state is TrialState.WAITING]
    theirs = [trial for trial in waiting if not {"control", "known_good", "arm"} & trial.user_attrs.keys()]
    return [t for t in theirs if "fixed_params" in t.system_attrs or "attempts" not in t.user_attrs]


def remark_on(trial: FrozenTrial, hyperparameters: Hyperparameters) -> str | None:
    """Say in one line what is odd about the values that a trial was enqueued with; None where nothing is."""
    given, searched = trial.system_attrs.get("fixed_params", {}), hyperparameters.searched()
    parts = [f"{name} is not searched here, so it fails" for name in given if name not in searched]
    for name, setting in searched.items():
        value = given.get(name)
        if name not in given:
            parts.append(f"{name} is left to the sampler")
        elif isinstance(setting, FloatRange | IntRange):
            if not isinstance(value, int | float) or not setting.low <= value <= setting.high:
                parts.append(f"{name} {value!r} is outside {shown_range(setting)}, and is taken as it is")
        elif value not in setting.choices:
            parts.append(f"{name} {value!r} is not among {', '.join(map(shown, setting.choices))}, so it fails")
    return "; ".join(parts) or None
