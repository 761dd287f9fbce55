"""The search with Syne Tune: ASHA with its KDE searcher (that is BOHB), a process for each trial on this host."""

from pathlib import Path

from distil import GRACE, KEPT, prepare, save_winner, search_options
from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.backend.trial_status import Status
from syne_tune.config_space import loguniform, uniform
from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving


def main() -> None:
    """The command."""
    options = search_options()
    prepare(options.folder, options.teacher_epochs)
    space = {
        "temperature": uniform(1.0, 8.0),
        "alpha": uniform(0.0, 1.0),
        "overlay_probability": uniform(0.0, 0.5),
        "overlay_strength": uniform(0.05, 0.95),
        "learning_rate": loguniform(1e-3, 1.0),
    }
    scheduler = AsynchronousSuccessiveHalving(
        {**space, "folder": str(options.folder), "epochs": options.epochs, "seed": options.seed},
        metric="accuracy",
        do_minimize=False,
        searcher="kde",
        time_attr="epoch",
        max_t=options.epochs,
        grace_period=GRACE,
        reduction_factor=KEPT,
        random_seed=options.seed,
    )
    tuner = Tuner(
        LocalBackend(entry_point=str(Path(__file__).with_name("syne_trial.py"))),
        scheduler,
        StoppingCriterion(max_num_trials_started=options.trials - 1),  # it stops where more than these were
        n_workers=options.workers,
        sleep_time=0.5,  # 5 s by default, half of a trial
        wait_trial_completion_when_stopping=True,
        trial_backend_path=str(options.folder / "trials"),
    )
    tuner.run()
    _, config = tuner.best_config()
    states = tuner.tuning_status.last_trial_status_seen.values()
    ended = sum(state in (Status.completed, Status.stopped) for state in states)
    reached = tuner.tuning_status.overall_metric_statistics.max_metrics["accuracy"]
    settings = {name: config[name] for name in space}
    save_winner(options.folder, settings, reached, ended=ended, lost=len(states) - ended)


if __name__ == "__main__":
    main()
