"""The search with plain Optuna: processes that share a study in a journal file, its own sampler and pruner."""

import argparse
import multiprocessing
from typing import Any

import optuna
from distil import GRACE, prepare, save_winner, search_options, train_student
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

NAME = "digits"
BEGUN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


def storage(options: argparse.Namespace) -> JournalStorage:
    """Return the journal, which several processes may write."""
    return JournalStorage(JournalFileBackend(str(options.folder / "journal.log")))


def work(options: argparse.Namespace, number: int) -> None:
    """Run trials until as many as are wanted have begun."""

    def objective(trial: optuna.Trial) -> float:
        settings = {
            "temperature": trial.suggest_float("temperature", 1.0, 8.0),
            "alpha": trial.suggest_float("alpha", 0.0, 1.0),
            "overlay_probability": trial.suggest_float("overlay_probability", 0.0, 0.5),
            "overlay_strength": trial.suggest_float("overlay_strength", 0.05, 0.95),
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
        }
        reached = 0.0
        for epoch, reached in train_student(
            options.folder, settings, epochs=options.epochs, seed=options.seed + trial.number
        ):
            trial.report(reached, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return reached

    study = optuna.load_study(
        study_name=NAME,
        storage=storage(options),
        sampler=optuna.samplers.TPESampler(seed=options.seed + number),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=GRACE),
    )
    study.optimize(objective, callbacks=[MaxTrialsCallback(options.trials, states=BEGUN)])


def main() -> None:
    """The command."""
    options = search_options()
    prepare(options.folder, options.teacher_epochs)
    study = optuna.create_study(study_name=NAME, storage=storage(options), direction="maximize")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(options, number)) for number in range(options.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    ended = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
    best: Any = study.best_trial
    save_winner(options.folder, best.params, best.value, ended=ended, lost=len(study.trials) - ended)


if __name__ == "__main__":
    main()
