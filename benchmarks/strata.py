"""Strata against none: how many trials of a search fall below each size, and how good the best there is.

    python benchmarks/strata.py [--seeds 2] [--trials 40] [--folder strata]

Searches on `digits` over networks and widths of very different size, each with strata and without, with the same
samplers' seeds, one trial at a time; finished searches are kept in the folder, and the same command goes on. What is
printed is read from the database with plain SQL, and so is the best under each of five limits, which must be what
`best --under` finds: with another answer the benchmark ends with 1.
"""

import argparse
import os
import sqlite3
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import igkd_hpo

ENDS = (20_000, 100_000, 500_000)
LIMITS = (5_000, 20_000, 50_000, 100_000, 500_000)
STUDY = {
    "dataset": {"name": "digits"},
    "teacher": {"width": 0.5, "epochs": 15},
    "augmentation": {"crop_padding": 1, "horizontal_flip": False},
    "training": {"epochs": 4},
    "hyperparameters": {
        "architecture": {"type": "categorical", "choices": ["mobilenet_v2", "torchvision/shufflenet_v2_x0_5"]},
        "temperature": {"type": "float", "low": 1.0, "high": 8.0},
        "alpha": {"type": "float", "low": 0.0, "high": 1.0},
        "overlay_probability": 0.0,
        "overlay_strength": 0.0,
        "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
        "layers_removed": {"type": "int", "low": 1, "high": 12},
        "stages_removed": {"type": "int", "low": 0, "high": 1},
        "width": {"type": "float", "low": 0.1, "high": 0.5},
    },
    "controls": [],
}
_TRIALS = """
select t.number, t.state, v.value, p.value_json + 0.0,
  (select count(*) from trial_intermediate_values i where i.trial_id = t.trial_id)
from trials t join studies s on s.study_id = t.study_id
left join trial_values v on v.trial_id = t.trial_id
left join trial_user_attributes p on p.trial_id = t.trial_id and p.key = 'parameters'
where s.study_name = ? order by t.number
"""


class Trial(NamedTuple):
    """A row of the database."""

    number: int
    state: str
    value: float | None
    parameters: float
    epochs: int


def trials_of(name: str) -> list[Trial]:
    """Read a search as it is recorded."""
    with closing(sqlite3.connect("storage/igkd_hpo.db")) as connection:
        return [Trial(*row) for row in connection.execute(_TRIALS, (name,))]


def best(trials: list[Trial], limit: float) -> Trial | None:
    """Return the best COMPLETE trial of at most so many parameters, of equal ones the first."""
    fit = [trial for trial in trials if trial.state == "COMPLETE" and trial.parameters <= limit]
    return max(fit, key=lambda trial: (trial.value or 0, -trial.number), default=None)


def rows(name: str, trials: list[Trial]) -> list[str]:
    """Say for each stratum how many trials were trained there, and how good the best is."""
    trained = [trial for trial in trials if trial.epochs]
    beyond, epochs = len(trials) - len(trained), sum(trial.epochs for trial in trained)
    found = [f"{name}: {len(trained)} trained, {beyond} not trained, {epochs} epochs"]
    for above, end in pairwise((0, *ENDS)):
        within = [trial for trial in trained if above < trial.parameters <= end]
        complete = sum(trial.state == "COMPLETE" for trial in within)
        top = best(trials, end)
        reached = "-" if top is None else f"{100 * (top.value or 0):.2f} % ({top.parameters:,.0f}, #{top.number})"
        found.append(
            f"  to {end:>9,.0f}: {len(within):2d} trials, {complete:2d} complete; the best up to there: {reached}"
        )
    return found


def agrees(name: str, trials: list[Trial]) -> bool:
    """Compare `best --under` with the plain reading, for each of the limits."""
    study, same = igkd_hpo.open_study(name), True
    for limit in LIMITS:
        plain = best(trials, limit)
        try:
            told = study.best_under({"parameters": limit}).number
        except igkd_hpo.NoCompletedTrial:
            told = None
        same &= told == (None if plain is None else plain.number)
        print(f"  best --under parameters={limit}: {told}, plain SQL: {plain and plain.number}")
    return same


def main() -> int:
    """Run the searches, and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("strata"))
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    os.chdir(options.folder)
    same = True
    for seed in range(options.seeds):
        for strata in (None, {"of": "parameters", "at": list(ENDS)}):
            name = f"{'none' if strata is None else 'strata'}-{seed}"
            file = STUDY | {"name": name, "sampler": {"seed": seed}, "n_trials": options.trials}
            if strata is not None:
                file["strata"] = strata
            igkd_hpo.launch(file, engine="in_process", progress=False)
            trials = trials_of(name)
            print("\n".join(rows(name, trials)))
            same &= agrees(name, trials)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
