"""Which pruner, by experiment: learning curves recorded to their end, then replayed under every pruner there is.

    python benchmarks/pruners.py record digits --output benchmarks/curves/digits.jsonl
    python benchmarks/pruners.py record benchmarks/pruners-cifar.yaml --output benchmarks/curves/cifar.jsonl
    python benchmarks/pruners.py replay benchmarks/curves/digits.jsonl --check

`record` trains configurations drawn at random from a study file's search space, and its controls, each to the last
epoch, by the code that trains a trial, and the best of them again with other seeds. A line of the output is a
training; the same command goes on where it stopped.

`replay` runs studies of these configurations, in many random orders, on a simulated clock: so many workers take a
trial each, report its recorded accuracies when its recorded seconds have passed, and ask Optuna's own pruner, made as
the workers make it. Controls come first and are never pruned. A configuration that was trained with several seeds
shows the curve of one of them, drawn anew in every replay. What this leaves out: a sampler that learns.

Beside the pruners of the study file are those of others, with their own defaults: Optuna's median and Wilcoxon
pruners, and Ray Tune's ASHA, its scheduler's own class, asked about the same trials at the same times. Two rules know
noise, and are here alone; so is halving whose trials wait at a rung until they are among its best, as ASHA's paper has
it. And there is no pruner at all for fewer trials: what a search loses that ends sooner.
"""

import argparse
import heapq
import itertools
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import scipy.special
from numpy.typing import NDArray
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.controls import make_control
from igkd_hpo.config.pruner import Pruner
from igkd_hpo.config.reading import read_study, study_from_json
from igkd_hpo.config.sampler import RandomSampler
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.search.pruner import STARTUP_TRIALS, make_pruner
from igkd_hpo.search.space import as_setting, distributions
from igkd_hpo.search.suggest import make_sampler
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.terminal.progress import make_progress

SEED_STEP = 1000  # between two seeds of a configuration: trial n trains with the study's seed + n
DEFAULT = "the default"
GOAL_SHARE = 1 / 3  # of the epochs that a study without pruning trains
FEWER = (1 / 3, 0.4, 0.5)  # of the trials, the first ones
MEDIAN, ASHA = "Optuna's median", "Ray's ASHA 1 in 4, grace 1"  # what the goal names beside it


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is trained. `params` are its searched hyperparameters, for people."""

    number: int
    control: str | None
    hyperparameters: dict[str, Value]
    params: dict[str, Value]


def configurations(study: Study, count: int) -> Iterator[Configuration]:
    """The study's controls, then `count` drawn from its search space."""
    for number, name in enumerate(study.controls):
        control = make_control(name, study.hyperparameters)
        yield Configuration(number=number, control=name, hyperparameters=control.hyperparameters, params=control.params)
    searched = study.hyperparameters.searched()
    sampler = make_sampler(RandomSampler(name="random", seed=study.sampler.seed), study.hyperparameters, 0)
    drawn = optuna.create_study(sampler=sampler)
    for number in range(len(study.controls), len(study.controls) + count):
        found = drawn.ask(distributions(study.hyperparameters)).params
        params = {name: as_setting(searched[name], value) for name, value in found.items()}
        fixed = study.hyperparameters.fixed()
        yield Configuration(number=number, control=None, hyperparameters=fixed | params, params=params)


def record(study: Study, settings: Settings, output: Path, *, count: int, best: int, seeds: int, device: str) -> None:
    """Train what is not there yet: everything once, then the `best` with `seeds - 1` more seeds each."""
    import torch

    from igkd_hpo.assets.study_assets import open_assets, prepare_assets
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.heap import keep_freed_memory

    chosen = choose_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    keep_freed_memory()
    with make_progress() as progress:
        summary = prepare_assets(study, settings, device=str(chosen), progress=progress)
    header = {
        # All that decides a curve; which pruner it is for, and of how many trials, does not.
        "study": json.loads(study.model_dump_json(exclude={"pruner", "n_trials"})),
        "dataset_sha256": summary.dataset_sha256,
        "teacher_sha256": summary.teacher_sha256,
        "teacher_accuracy": round(summary.teacher_accuracy, 4),
        "images": [summary.n_train, summary.n_validation],
        "hardware": f"{chosen.type}, {platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "commit": code_commit(),
    }
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(header) + "\n", encoding="utf-8")
    found = Curves.read(output)
    same = ("study", "dataset_sha256", "teacher_sha256")
    if any(found.header[name] != header[name] for name in same):
        raise SystemExit(f"{output} holds another study's curves, or those of another teacher; give another --output")
    assets = open_assets(study, settings)
    every = list(configurations(study, count))

    def train_missing(which: Sequence[Configuration], repeat: int) -> None:
        done = {(line.configuration, line.repeat) for line in Curves.read(output).lines}
        for configuration in which:
            if (configuration.number, repeat) in done:
                continue
            line = _train(study, assets, configuration, repeat, chosen)
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(line)) + "\n")
            last = line.accuracy[-1] if line.accuracy else "none"
            print(f"{configuration.number}, seed {line.seed}: {last}, {sum(line.seconds):.1f} s", file=sys.stderr)

    train_missing(every, 0)
    final = {line.configuration: line.final for line in Curves.read(output).lines if line.repeat == 0}
    chosen_ones = sorted(every, key=lambda configuration: -final[configuration.number])[:best]
    for repeat in range(1, seeds):
        train_missing(chosen_ones, repeat)


def _train(study: Study, assets: Any, configuration: Configuration, repeat: int, device: Any) -> "Line":
    from igkd_hpo.distillation.training import NonFiniteLoss
    from igkd_hpo.trial.build import make_trial

    seed = study.training.seed + configuration.number + SEED_STEP * repeat
    trial = make_trial(study, configuration.hyperparameters, assets, seed=seed, device=device)
    # On a CPU with one thread this is the time that a core of its own would take, whatever else runs.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    accuracy: list[float] = []
    seconds: list[float] = []
    begun = clock()
    try:
        for epoch in trial.training.epochs():
            now = clock()
            accuracy.append(round(epoch.validation_accuracy, 4))
            seconds.append(round(now - begun, 2))
            begun = now
    except NonFiniteLoss:
        pass  # a curve that is too short
    params = {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in configuration.params.items()
    }
    return Line(
        configuration=configuration.number,
        control=configuration.control,
        repeat=repeat,
        seed=seed,
        params=params,
        accuracy=accuracy,
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class Line:
    """A training: accuracy on validation after, and seconds of, each epoch. One that diverged has fewer of them."""

    configuration: int
    control: str | None
    repeat: int
    seed: int
    params: dict[str, Value]
    accuracy: list[float]
    seconds: list[float]

    @property
    def final(self) -> float:
        """What a study would compare: the accuracy after the last epoch."""
        return self.accuracy[-1] if self.accuracy else 0.0


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A file that `record` wrote."""

    header: dict[str, Any]
    lines: list[Line]

    @classmethod
    def read(cls, path: Path) -> "Curves":
        """All of its lines; what a crash cut off is left out."""
        header, *texts = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [text for text in texts if text.endswith("\n")]
        if len(whole) < len(texts):
            path.write_text("".join([header, *whole]), encoding="utf-8")
        return cls(header=json.loads(header), lines=[Line(**json.loads(text)) for text in whole])


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What one study came to.

    Args:
        epochs: that were trained.
        seconds: on the simulated clock, until the last worker was done.
        completed: which trials ran to their end.
        pruned: which the pruner ended.
    """

    epochs: int
    seconds: float
    completed: frozenset[int]
    pruned: frozenset[int]


def replay_study(curves: Sequence[Line], pruner: BasePruner, *, epochs: int, workers: int, name: str) -> Replayed:
    """One study of these trainings, claimed in their order; what ends first at a time was claimed first."""
    study = optuna.create_study(study_name=name, direction="maximize")
    storage = study._storage
    waiting = iter(range(len(curves)))
    clock: list[tuple[float, int, int]] = []  # when an epoch ends, of which trial, which epoch
    ids: dict[int, int] = {}
    trained, now = 0, 0.0
    completed, pruned = set(), set()

    def claim() -> None:
        for index in waiting:
            ids[index] = study.ask()._trial_id
            if curves[index].accuracy:
                heapq.heappush(clock, (now + curves[index].seconds[0], index, 1))
                return
            storage.set_trial_state_values(ids[index], TrialState.PRUNED)  # it diverged at once

    for _ in range(workers):
        claim()
    while clock:
        now, index, epoch = heapq.heappop(clock)
        curve, trial_id = curves[index], ids[index]
        trained += 1
        storage.set_trial_intermediate_value(trial_id, epoch, curve.accuracy[epoch - 1])
        if epoch == epochs:
            storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [curve.final])
            completed.add(index)
        elif epoch == len(curve.accuracy):
            storage.set_trial_state_values(trial_id, TrialState.PRUNED)  # the next epoch's loss was not finite
        elif curve.control is None and pruner.prune(study, storage.get_trial(trial_id)):
            storage.set_trial_state_values(trial_id, TrialState.PRUNED, [curve.accuracy[epoch - 1]])
            pruned.add(index)
        else:
            heapq.heappush(clock, (now + curve.seconds[epoch], index, epoch + 1))
            continue
        claim()
    return Replayed(epochs=trained, seconds=now, completed=frozenset(completed), pruned=frozenset(pruned))


def replay_waiting(
    curves: Sequence[Line], *, grace_period: int, reduction_factor: int, epochs: int, workers: int
) -> Replayed:
    """One study by ASHA as published (Li et al. 2020, algorithm 2): at a rung a trial waits, and a free worker first
    goes on with one that is among the best 1 in `reduction_factor` there, from the highest rung down, else begins anew.

    What still waits when nothing is left to do was pruned.
    """
    seen: dict[int, dict[int, float]] = {}  # by epoch, what each trial had at that rung
    rung = grace_period
    while rung < epochs:
        seen[rung] = {}
        rung *= reduction_factor
    waiting: dict[int, set[int]] = {rung: set() for rung in seen}
    new = iter(range(len(curves)))
    clock: list[tuple[float, int, int]] = []  # when an epoch ends, of which trial, which epoch
    trained, now = 0, 0.0
    completed: set[int] = set()

    def next_one() -> tuple[int, int] | None:
        """A trial, and the epochs that it has."""
        for rung in reversed(seen):
            best = sorted(seen[rung], key=lambda index: (-seen[rung][index], index))
            for index in best[: len(best) // reduction_factor]:
                if index in waiting[rung]:
                    waiting[rung].remove(index)
                    return index, rung
        return next(((index, 0) for index in new if curves[index].accuracy), None)

    def fill() -> None:
        while len(clock) < workers and (found := next_one()) is not None:
            index, reached = found
            heapq.heappush(clock, (now + curves[index].seconds[reached], index, reached + 1))

    fill()
    while clock:
        now, index, epoch = heapq.heappop(clock)
        curve = curves[index]
        trained += 1
        if epoch == epochs:
            completed.add(index)
        elif epoch < len(curve.accuracy):  # else the next epoch's loss was not finite
            if curve.control is None and epoch in seen:
                seen[epoch][index] = curve.accuracy[epoch - 1]
                waiting[epoch].add(index)
            else:
                heapq.heappush(clock, (now + curve.seconds[epoch], index, epoch + 1))
        fill()
    return Replayed(
        epochs=trained, seconds=now, completed=frozenset(completed), pruned=frozenset().union(*waiting.values())
    )


def settings_to_try() -> dict[str, Pruner]:
    """Every pruner of the study file, by a short name. A median is a percentile that keeps 50."""
    documents: dict[str, dict[str, Any]] = {"none": {"name": "none"}}
    every = [(keep, grace, 0) for keep, grace in itertools.product((25, 50, 66), (1, 2, 3))]
    for keep, grace, patience in [*every, (25, 1, 1), (50, 3, 1), (50, 3, 2)]:
        documents[f"percentile {keep}, grace {grace}, patience {patience}"] = {
            "name": "percentile", "keep": keep, "grace_period": grace, "patience": patience
        }  # fmt: skip
    documents["median, grace 3"] = {"name": "median", "grace_period": 3}
    for factor, grace in itertools.product((2, 3, 4), (1, 2, 3, 4)):
        documents[f"successive_halving 1 in {factor}, grace {grace}"] = {
            "name": "successive_halving", "grace_period": grace, "reduction_factor": factor
        }  # fmt: skip
    default = Study.model_fields["pruner"].default
    documents[DEFAULT] = default.model_dump()
    documents["hyperband 1 in 3"] = {"name": "hyperband", "grace_period": 1, "reduction_factor": 3}
    adapter: TypeAdapter[Pruner] = TypeAdapter(Pruner)
    return {name: adapter.validate_python(document) for name, document in documents.items()}


class RayAsha(BasePruner):
    """Ray Tune's own scheduler, told what a trial reports in the order in which its controller would hear it.

    Of a trial it reads the identifier alone. It remembers, so that each study needs a new one.
    """

    def __init__(self, epochs: int, *, grace_period: int, reduction_factor: float) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self._scheduler = AsyncHyperBandScheduler(
            metric="accuracy", mode="max", max_t=epochs, grace_period=grace_period, reduction_factor=reduction_factor
        )

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Tell it the newest accuracy; whether it says STOP."""
        known, epoch = SimpleNamespace(trial_id=str(trial.number)), trial.last_step
        if epoch == 1:
            self._scheduler.on_trial_add(None, known)
        result = {"training_iteration": epoch, "accuracy": trial.intermediate_values[epoch]}
        return bool(self._scheduler.on_trial_result(None, known, result) == "STOP")


class LowerBar(BasePruner):
    """Successive halving that spares what its bar misses by less than some standard deviations of one seed.

    `noise` is that of each epoch, from all recorded repeats: more than a study knows, so what is lost here is lost.
    """

    def __init__(self, grace_period: int, *, reduction_factor: int, deviations: float, noise: Sequence[float]) -> None:
        self._rungs = [grace_period * reduction_factor**rung for rung in range(len(noise))]
        self._factor = reduction_factor
        self._slack = [deviations * one for one in noise]
        self._reached: dict[int, list[float]] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the newest accuracy is below the bar of a rung by more than the slack."""
        epoch = trial.last_step
        if epoch not in self._rungs:
            return False
        value = trial.intermediate_values[epoch]
        reached = self._reached.setdefault(epoch, [])
        reached.append(value)
        bar = sorted(reached, reverse=True)[max(len(reached) // self._factor, 1) - 1]
        return value < bar - self._slack[epoch - 1]


class Outlook(BasePruner):
    """Stop a trial whose chance to end above the best completed one is below `chance`.

    Where it will end is foretold from epoch to epoch: a line through what all trials, stopped ones too, had at both,
    with its own error and what is left beside it, which holds the noise between seeds. That trials were stopped by
    what is on the line already does not bend it.
    """

    def __init__(self, epochs: int, *, chance: float) -> None:
        self._epochs = epochs
        self._chance = chance

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the outlook is that poor; not before STARTUP_TRIALS have completed."""
        others = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        completed = [one.value for one in others if one.state is TrialState.COMPLETE]
        if len(completed) < STARTUP_TRIALS:
            return False
        reported = itertools.zip_longest(*(one.intermediate_values.values() for one in others), fillvalue=np.nan)
        seen = np.array(list(reported))  # epochs x trials; of a step both ends count
        count = np.isfinite(seen[1:]).sum(axis=1)
        centre, aim = (np.nansum(np.where(np.isfinite(seen[1:]), end, np.nan), axis=1) / count
                       for end in (seen[:-1], seen[1:]))  # fmt: skip
        off, height = seen[:-1] - centre[:, None], seen[1:] - aim[:, None]
        spread = np.nansum(np.where(np.isfinite(height), off, np.nan) ** 2, axis=1) + 1e-9
        slope = np.nansum(off * height, axis=1) / spread
        left = np.nansum((height - slope[:, None] * off) ** 2, axis=1) / (count - 2)
        newest = trial.last_step
        mean, variance = trial.intermediate_values[newest], 0.0
        for step in range(newest - 1, self._epochs - 1):
            at = mean - centre[step]
            mean = aim[step] + slope[step] * at
            variance = slope[step] ** 2 * variance + left[step] * (1 + 1 / count[step] + at**2 / spread[step])
        freedom = count[newest - 1 :].min() - 2
        return bool(scipy.special.stdtr(freedom, (mean - max(completed)) / max(variance**0.5, 1e-9)) < self._chance)


def others_to_try(epochs: int, noise: Sequence[float]) -> dict[str, Callable[[], BasePruner]]:
    """What no study file has, by a short name: others' pruners with their own defaults, and two rules."""
    asha = {f"Ray's ASHA 1 in {factor}, grace 1": partial(RayAsha, epochs, grace_period=1, reduction_factor=factor)
            for factor in (2, 3, 4)}  # fmt: skip
    lower = {
        f"bar lowered by {deviations:g} sigma, 1 in {factor}, grace 1": partial(
            LowerBar, 1, reduction_factor=factor, deviations=deviations, noise=noise
        )
        for factor, deviations in itertools.product((2, 4), (0.5, 1.0))
    }
    outlook = {f"outlook, chance {chance:g}": partial(Outlook, epochs, chance=chance) for chance in (0.05, 0.1, 0.2)}
    return {
        MEDIAN: optuna.pruners.MedianPruner,
        # It asks for values that belong together by their step, of which a trial has as many as it likes: epochs.
        "Optuna's Wilcoxon": partial(_quiet, optuna.pruners.WilcoxonPruner),
        **asha,
        **lower,
        **outlook,
    }


def _quiet(make: Callable[[], BasePruner]) -> BasePruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make()


def draw_study(lines: Sequence[Line], trials: int, random: np.random.Generator) -> list[Line]:
    """The controls, then other configurations in random order, `trials` in all; each with one of its seeds."""
    by_number: dict[int, list[Line]] = {}
    for line in lines:
        by_number.setdefault(line.configuration, []).append(line)
    drawn = [seeds[random.integers(len(seeds))] for _, seeds in sorted(by_number.items())]
    controls = [line for line in drawn if line.control is not None]
    others = [line for line in drawn if line.control is None]
    return controls + [others[index] for index in random.permutation(len(others))[: trials - len(controls)]]


def seed_noise(lines: Sequence[Line], epoch: int | None = None) -> tuple[float, int]:
    """Standard deviation of accuracy between the seeds of a configuration, pooled, and its freedoms.

    After an epoch, or the last. One that diverged had an accuracy of 0 from there on.
    """
    squares, freedoms = 0.0, 0
    for mean, values in _by_configuration(lines, epoch).values():
        squares += float(((values - mean) ** 2).sum())
        freedoms += len(values) - 1
    return (float((squares / freedoms) ** 0.5) if freedoms else float("nan")), freedoms


def _by_configuration(lines: Sequence[Line], epoch: int | None = None) -> dict[int, tuple[float, NDArray[np.float64]]]:
    found: dict[int, list[float]] = {}
    for line in lines:
        reached = line.final if epoch is None else (line.accuracy[epoch - 1] if epoch <= len(line.accuracy) else 0.0)
        found.setdefault(line.configuration, []).append(reached)
    return {number: (float(np.mean(values)), np.array(values)) for number, values in found.items()}


MEASURES = {
    "epochs": "epochs, of those without pruning",
    "time": "time, of that without pruning",
    "regret": "accuracy of the best at the end, less that of the chosen: the seeds that the study saw",
    "regret_of_searched": "the same among what was searched: the controls, which are never pruned, left out",
    "regret_of_means": "that of all, means over all recorded seeds of the two",
    "good_pruned": "of the best tenth of the configurations, pruned",
}


def compare(curves: Sequence[Line], means: dict[int, float], with_it: Replayed, without: Replayed) -> dict[str, float]:
    """One study under a pruner against the same study without one; `means` of the final accuracy by configuration."""

    def best_of(completed: frozenset[int]) -> Line | None:
        return curves[max(sorted(completed), key=lambda index: curves[index].final)] if completed else None

    searched = frozenset(index for index, curve in enumerate(curves) if curve.control is None)
    best, chosen = best_of(without.completed), best_of(with_it.completed)
    assert best is not None, "without a pruner something completes"
    # A pruner that lets nothing, or nothing of the search, complete has chosen nothing, at an accuracy of 0.
    found = [
        max((curves[index].final for index in ran.completed & searched), default=0.0) for ran in (without, with_it)
    ]
    ranked = sorted(without.completed, key=lambda index: -curves[index].final)[: max(1, round(len(curves) / 10))]
    return {
        "epochs": with_it.epochs / without.epochs,
        "time": with_it.seconds / without.seconds,
        "regret": best.final - (chosen.final if chosen else 0.0),
        "regret_of_searched": found[0] - found[1],
        "regret_of_means": means[best.configuration] - (means[chosen.configuration] if chosen else 0.0),
        "good_pruned": len(with_it.pruned.intersection(ranked)) / len(ranked),
    }


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Mean, its 95 % interval, and where 95 % of the replays lie."""
    array = np.array(values)
    error = 1.96 * float(array.std(ddof=1)) / len(array) ** 0.5 if len(array) > 1 else 0.0
    low, high = np.quantile(array, [0.025, 0.975])
    mean = float(array.mean())
    return {"mean": mean, "mean_low": mean - error, "mean_high": mean + error, "low": float(low), "high": float(high)}


def replay(
    found: Curves, *, orders: int, workers: Sequence[int], trials: int, only: Sequence[str] = ("",)
) -> dict[str, Any]:
    """Every pruner whose name contains one of `only` in the same studies, and fewer trials without one."""
    study = study_from_json(json.dumps(found.header["study"]), source="the file of curves")
    epochs = study.training.epochs
    noise, freedoms = seed_noise(found.lines)
    means = {number: mean for number, (mean, _) in _by_configuration(found.lines).items()}
    every: dict[str, Callable[[], BasePruner]] = {
        name: partial(make_pruner, pruner, epochs) for name, pruner in settings_to_try().items()
    }
    every |= others_to_try(epochs, [seed_noise(found.lines, epoch)[0] for epoch in range(1, epochs + 1)])
    waits = {
        f"waits, 1 in {factor}, grace {grace}": {"grace_period": grace, "reduction_factor": factor}
        for factor, grace in itertools.product((2, 3, 4), (1, 2, 4))
    }
    fewer = {f"none, {share:.0%} of the trials": share for share in FEWER}
    asked = [name for name in [*every, *waits, *fewer] if any(part in name for part in only)]
    measured: dict[tuple[int, str], list[dict[str, float]]] = {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with make_progress() as progress, progress.task("replayed studies", orders * len(workers)) as advance:
        for count, order in itertools.product(workers, range(orders)):
            curves = draw_study(found.lines, trials, np.random.default_rng(order))
            facts: dict[str, Any] = {"epochs": epochs, "workers": count}
            replayed = partial(replay_study, name=f"replay-{order}", **facts)
            without = replayed(curves, optuna.pruners.NopPruner())
            for name in asked:
                if name in waits:
                    with_it = replay_waiting(curves, **waits[name], **facts)
                else:
                    some = curves[: round(fewer.get(name, 1) * trials)]
                    with_it = replayed(some, every.get(name, optuna.pruners.NopPruner)())
                measured.setdefault((count, name), []).append(compare(curves, means, with_it, without))
            advance(1)
    rows = [
        {"workers": count, "pruner": name} | {key: summarize([each[key] for each in every]) for key in MEASURES}
        for (count, name), every in measured.items()
    ]
    return {
        "study": study.name,
        "trials": trials,
        "epochs": epochs,
        "orders": orders,
        "seed_noise": noise,
        "seed_noise_freedoms": freedoms,
        "recorded": {
            name: found.header[name] for name in ("images", "teacher_accuracy", "hardware", "torch", "commit")
        },
        "rows": rows,
        "measures": MEASURES,
    }


def goals(found: dict[str, Any]) -> dict[str, bool]:
    """Whether the study file's default reaches the goals with each number of workers."""
    reached = {}
    for count, group in itertools.groupby(found["rows"], key=lambda row: row["workers"]):
        rows = {row["pruner"]: row for row in group}
        if (default := rows.get(DEFAULT)) is None:
            continue
        epochs, regret = default["epochs"], default["regret_of_means"]
        reached[f"{count} workers: at most {GOAL_SHARE:.1%} of the epochs, a choice within seed noise"] = (
            epochs["mean_high"] <= GOAL_SHARE and regret["mean_high"] <= found["seed_noise"]
        )
        for other in (MEDIAN, ASHA):
            if other in rows:
                fewer = epochs["mean_high"] < rows[other]["epochs"]["mean_low"]
                reached[f"{count} workers: fewer epochs than {other}"] = fewer
    return reached


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(
        f"{found['study']}: {found['orders']} studies of {found['trials']} trials of {found['epochs']} epochs; "
        f"two seeds of a configuration differ by {found['seed_noise'] * 2**0.5 * 100:.2f} points (standard deviation "
        f"{found['seed_noise'] * 100:.2f} of each, {found['seed_noise_freedoms']} degrees of freedom)"
    )
    for count, rows in itertools.groupby(found["rows"], key=lambda row: row["workers"]):
        print(f"\n{f'{count} workers':44} {'epochs, %':>16} {'time, %':>8} {'regret, points':>18} "
              f"{'of the searched':>18} {'of means':>18} {'good pruned, %':>15}")  # fmt: skip
        for row in rows:
            spans = {key: "{mean:.1f} ({low:.0f}-{high:.0f})".format(**_percent(row[key])) for key in MEASURES}
            points = {
                key: "{mean:.2f} ({low:.1f} to {high:.1f})".format(**_percent(row[key]))
                for key in ("regret", "regret_of_searched", "regret_of_means")
            }
            regrets = " ".join(f"{points[key]:>18}" for key in points)
            print(f"  {row['pruner']:42} {spans['epochs']:>16} {100 * row['time']['mean']:8.1f} {regrets} "
                  f"{spans['good_pruned']:>15}")  # fmt: skip


def _percent(summary: dict[str, float]) -> dict[str, float]:
    return {key: 100 * value for key, value in summary.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train configurations to the end")
    recording.add_argument("study", help="a study file, or the name of a built-in study")
    recording.add_argument("--output", type=Path, required=True, help="one line per training")
    recording.add_argument("--storage", type=Path, default=Path("storage"), help="where the assets are kept")
    recording.add_argument("--configurations", type=int, default=64, help="drawn from the search space")
    recording.add_argument("--best", type=int, default=16, help="of them, trained with more seeds")
    recording.add_argument("--seeds", type=int, default=5, help="of each of the best")
    recording.add_argument("--device", default="cpu")
    replaying = commands.add_parser("replay", help="run studies of recorded curves on a simulated clock")
    replaying.add_argument("curves", type=Path, help="a file that record wrote")
    replaying.add_argument("--orders", type=int, default=200, help="random orders, for each number of workers")
    replaying.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    replaying.add_argument("--trials", type=int, help="of each study; default: all configurations")
    replaying.add_argument("--only", nargs="+", default=[""], help="pruners whose name contains one of these")
    replaying.add_argument("--json", action="store_true", help="print JSON")
    replaying.add_argument("--check", action="store_true", help="exit code 1 where the default pruner misses the goal")
    options = parser.parse_args(arguments)
    if options.command == "record":
        _record(options)
        return 0
    curves = Curves.read(options.curves)
    trials = options.trials or len({line.configuration for line in curves.lines})
    found = replay(curves, orders=options.orders, workers=options.workers, trials=trials, only=options.only)
    reached = goals(found)
    if options.json:
        print(json.dumps(found | {"goals": reached}, indent=2))
    else:
        show(found)
        for goal, holds in reached.items():
            print(f"{'reached' if holds else 'MISSED ':44} {goal}")
    return int(options.check and not all(reached.values()))


def _record(options: argparse.Namespace) -> None:
    builtin = builtin_studies()
    study = read_study(builtin.get(options.study, Path(options.study)))
    resolved = Settings.resolve()
    settings = Settings(
        paths=Paths(root=options.storage.absolute()),
        storage_url="",
        data_root=resolved.data_root,
        allow_import=resolved.allow_import,
    )
    record(study, settings, options.output, count=options.configurations, best=options.best, seeds=options.seeds,
           device=options.device)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
