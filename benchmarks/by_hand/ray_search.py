"""The search with Ray Tune: ASHA, Optuna's sampler, actors that are used again, trials that are begun again."""

import argparse

import ray
from distil import GRACE, KEPT, Settings, prepare, save_winner, search_options, train_student
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def trial(settings: Settings, options: argparse.Namespace) -> None:
    """Train one student."""
    for _, reached in train_student(options.folder, settings, epochs=options.epochs, seed=options.seed):
        tune.report({"accuracy": reached})


def main() -> None:
    """The command."""
    options = search_options()
    prepare(options.folder, options.teacher_epochs)
    ray.init(num_cpus=options.workers, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_parameters(trial, options=options),
        param_space={
            "temperature": tune.uniform(1.0, 8.0),
            "alpha": tune.uniform(0.0, 1.0),
            "overlay_probability": tune.uniform(0.0, 0.5),
            "overlay_strength": tune.uniform(0.05, 0.95),
            "learning_rate": tune.loguniform(1e-3, 1.0),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=options.trials,
            max_concurrent_trials=options.workers,
            search_alg=OptunaSearch(seed=options.seed),
            scheduler=ASHAScheduler(max_t=options.epochs, grace_period=GRACE, reduction_factor=KEPT),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(options.folder / "results"),
            failure_config=tune.FailureConfig(max_failures=3),
            verbose=0,
        ),
    )
    results = tuner.fit()
    best = results.get_best_result()
    assert best.config is not None
    assert best.metrics is not None
    lost = results.num_errors
    save_winner(options.folder, best.config, best.metrics["accuracy"], ended=len(results) - lost, lost=lost)


if __name__ == "__main__":
    main()
