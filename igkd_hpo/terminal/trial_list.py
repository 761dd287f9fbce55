"""List of a study's trials for people: what became of each, and the settings that were searched."""

from collections.abc import Collection, Iterable

from rich.table import Table

from igkd_hpo.config.space import Value, shown
from igkd_hpo.search.records import TrialRecord
from igkd_hpo.words import percent


def trial_list(trials: Iterable[TrialRecord], searched: Collection[str], metric: str) -> Table:
    """Return a row for each trial; what it trained with, or why it has nothing to tell of that."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("trial", metric.replace("_", " "), "epochs", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for trial in trials:
        parameters = trial.cost.get("parameters")
        table.add_row(
            str(trial.number),
            "" if trial.accuracy is None else percent(trial.accuracy),
            str(trial.epochs),
            "" if parameters is None else f"{parameters:,}",
            trial.state.lower(),
            _settings(trial, searched),
        )
    return table


def _settings(trial: TrialRecord, searched: Collection[str]) -> str:
    if trial.control is not None:
        return f"the control {trial.control}"
    chosen = [f"{name} {_value(trial.hyperparameters[name])}" for name in searched if name in trial.hyperparameters]
    return ", ".join(chosen) or trial.reason or ""


def _value(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else shown(value).rpartition("/")[2]
