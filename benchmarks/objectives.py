"""Which objective: each is tuned with the same budget, its winner is trained with fresh seeds, and all are ranked.

    python benchmarks/objectives.py benchmarks/objectives-cifar.yaml --trials 3 --seeds 3 --output cifar.jsonl
    python benchmarks/objectives.py shop.yaml --trials 8 --seeds 5 --output shop.jsonl

Every file of `distillation/objectives` and `distillation/terms` is compared, `plain` (alpha 0, no term), and of what a
student can learn in place of its weights `overparameterize` and `powerprop`. An added term is tried beside `kd`, one
that asks nothing of a teacher without one. What the study file gives is the same for all: images, teacher, student,
epochs. All search the learning rate, alpha and the temperature, where they have them (in the file's ranges, if it
searches them, or in those below), and what is their own; anything else that the file searches takes the middle of its
range, and nothing is pruned. Each is a study of its own, NAME-OBJECTIVE, by `igkd_hpo.launch`; all are in one database
(`--storage`, or as for `igkd-hpo launch`), so that teacher, table and maps are made once. Its best trial on
validation is what `confirm` trains with fresh seeds, the same ones for all, and tests once each; no parts are taken
out (`igkd-hpo confirm NAME-OBJECTIVE` adds those).

What is finished is a line of the output file, and the same command goes on where it stopped, within a study too;
with more `--trials` or `--seeds` it adds to what is there. `--sampler-seed` repeats the searches with other draws.

The images of `objectives-cifar.yaml` are a part of CIFAR-10, a file each: by their names the first 120 of each class
in `cifar-part/train/CLASS/`, the next 60 in `cifar-part/val/CLASS/`, and of the test images 500 in
`cifar-part/test/CLASS/`. In bash, from a folder `cifar` that holds `train/CLASS/` and `test/CLASS/`:

    part() { for c in cifar/$1/*; do d=cifar-part/$2/${c##*/}; mkdir -p $d
             ls $c | sed -n $3p | while read f; do cp $c/$f $d; done; done; }
    part train train 1,120; part train val 121,180; part test test 1,500

Its teacher, `student-L5-KD-92.29.pt`, is of the paper's authors: github.com/nordlinglab/
ModelCompression-IntegratedGradients. It was trained on all training images, those that validate here among them.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import scipy
from optuna.trial import TrialState

import igkd_hpo
from igkd_hpo.api.source import existing_study, settings_here
from igkd_hpo.api.supervise import EngineLike, open_engine, supervise
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.controls import PLAIN, replaced
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.reading import read_study, study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.evaluation import evaluate, read_record
from igkd_hpo.confirmation.plan import best_candidates
from igkd_hpo.confirmation.statistics import LEVEL, Contrast, Estimate, holm, moderated_variances, t_interval
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role, declared_in
from igkd_hpo.distillation.objectives import OBJECTIVES
from igkd_hpo.distillation.recipe import HYPERPARAMETERS
from igkd_hpo.distillation.terms import TERMS
from igkd_hpo.engines.engine import Host, prepare_existing
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, NoCompletedTrial, StudyFileError, StudyStopped, UsageError
from igkd_hpo.files import write_output
from igkd_hpo.search.confirmation_study import arm_trials, arms_of, create_linked, extend, fresh_seeds
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.progress import make_console, make_progress
from igkd_hpo.words import counted

REFERENCES = ("kd", "plain")
WITHOUT_TEMPERATURE = ("logit_mse",)  # where it cancels out
COMMON: dict[str, dict[str, Any]] = {
    "alpha": {"type": "float", "low": 0.1, "high": 1.0},
    "temperature": {"type": "float", "low": 1.0, "high": 8.0, "log": True},
}
# Terms are sized so that 1 matters, and of those on features a hundredth where the networks are of two families; maps
# of attention have length 1 in each: between families 10 added 6 points to short trainings, 0.02 nothing.
WEIGHT = {"type": "float", "low": 0.1, "high": 10.0, "log": True}
WEIGHT_BETWEEN_FAMILIES = {"type": "float", "low": 0.01, "high": 1.0, "log": True}
OWN: dict[str, dict[str, Any]] = {
    "dkd_beta": {"type": "float", "low": 1.0, "high": 8.0, "log": True},
    "foster_beta": {"type": "float", "low": 0.9, "high": 0.999},
    "rtk_keys": {"type": "int", "low": 1, "high": 5},
    "osakd_weight": {"type": "float", "low": 0.1, "high": 2.0, "log": True},
    "osakd_neighbors": {"type": "int", "low": 5, "high": 30},
    "overparameterize": {"type": "categorical", "choices": ["mpo", "branches"]},
    "powerprop_alpha": {"type": "float", "low": 1.1, "high": 2.5},
}
OTHERS = {"overparameterize": ("overparameterize",), "powerprop": ("powerprop_alpha",)}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one objective came to; a line of the output file.

    Args:
        key: what the line is a result of: another study file, number of trials or seeds, or sampler has another one.
        validation: accuracy of the best trial, a fraction.
        settings: of that trial, those that are searched.
        test: accuracy on the test split by seed, without the seeds that diverged.
    """

    arm: str
    key: str
    study: str
    validation: float
    settings: Mapping[str, Any]
    test: Mapping[str, float]
    test_images: int
    commit: str | None

    @property
    def accuracies(self) -> list[float]:
        """Return the accuracies on the test split, in the order of the seeds."""
        return [self.test[seed] for seed in sorted(self.test, key=int)]


def own_settings() -> dict[str, tuple[str, ...]]:
    """Return the names of all arms, each with the hyperparameters that it alone searches."""
    own = {name: tuple(declared_in(file)) for name, file in {**OBJECTIVES, **TERMS}.items()}
    return {"plain": (), **own, **OTHERS}


def arm_study(base: Study, name: str, *, sampler_seed: int) -> Study:
    """Return the study that tunes an arm. Raises StudyFileError where this student or teacher cannot have it."""
    given = base.hyperparameters
    off = {key: 0.0 for file in TERMS.values() for key, one in declared_in(file).items() if one.is_weight}
    values: dict[str, Any] = replaced(given.middle(), PLAIN) | off
    values |= {"overparameterize": "none", "powerprop_alpha": 1.0}
    ranges = {key: json.loads(setting.model_dump_json()) for key, setting in given.searched().items()}
    rate = float(values["learning_rate"])
    usual = {"type": "float", "low": rate / 4, "high": rate * 4, "log": True}
    values["learning_rate"] = ranges.get("learning_rate", usual)
    own = {key: HYPERPARAMETERS[key] for key in own_settings()[name]}
    if any(one.is_weight and one.role is Role.TRAINING for one in own.values()) or name == "plain":
        values["alpha"] = 0.0
    else:
        values |= {key: ranges.get(key, setting) for key, setting in COMMON.items()}
    if name in OBJECTIVES:
        values["objective"] = name
    if name in WITHOUT_TEMPERATURE or values["alpha"] == 0.0:
        values["temperature"] = given.middle()["temperature"]
    between = {base.teacher.architecture} != set(given.words("architecture"))
    for key, one in own.items():
        weight = WEIGHT_BETWEEN_FAMILIES if between and one.role is Role.FEATURES else WEIGHT
        values[key] = _range(key, one, values, weight)
    document = json.loads(base.model_dump_json()) | {
        "name": f"{base.name}-{name}" + (f"-{sampler_seed}" if sampler_seed != base.sampler.seed else ""),
        "hyperparameters": values,
        "pruner": {"name": "none"},
        "controls": [],
        "provenance": None,
    }
    document["sampler"]["seed"] = sampler_seed
    return study_from_json(json.dumps(document), source=base.name)


def _range(key: str, one: Hyperparameter, values: Mapping[str, Any], weight: dict[str, Any]) -> Any:
    """Return what an arm searches of its own: what is not known here keeps its default, if it is no weight or word."""
    if key == "attention_weight":
        return WEIGHT | {"high": 3 * WEIGHT["high"]}  # 16 is the usual one at 8x8 positions
    if key == "osakd_neighbors":
        return OWN[key] | {"high": max(OWN[key]["low"], min(OWN[key]["high"], int(values["batch_size"]) - 1))}
    if key in OWN:
        return OWN[key]
    if one.words:
        return {"type": "categorical", "choices": list(one.words)}
    return weight if one.is_weight else values[key]


def run_arm(name: str, study: Study, options: argparse.Namespace, settings: Settings, key: str) -> Result:
    """Search, train the winner with fresh seeds, and test these; go on with what is in the database.

    Raises what `launch` and `confirm` raise.
    """
    engine: EngineLike = "in_process" if options.workers == 1 else "local"
    where = {"workers": options.workers, "device": options.device, "allow_import": options.allow_import}
    igkd_hpo.launch(study, trials=options.trials, storage=options.storage, engine=engine, progress=False, **where)
    search = existing_study(study.name, settings)
    winner = best_candidates(search, 1)[0]
    pins, seeds = search.read().pins, fresh_seeds(study, options.seeds)
    assert pins is not None, "it was launched"
    linked = create_linked(search.storage, search.config, "confirm", pins=pins)
    extend(linked, [winner], seeds)
    with open_engine(engine) as opened, StopSignal() as stop, make_progress(False) as quiet:
        host = Host(settings=settings, device=options.device, stop=stop)
        prepare_existing(opened, linked, host, quiet)
        supervise(opened, linked, host, workers=options.workers, console=make_console(False))
        if stop.received is not None:
            raise Interrupted("stopped; the same command goes on", stop.received)
        if linked.counts().finished < linked.read().n_trials:
            raise IgkdError(f"not every training of {linked.name} ended; the same command tries the rest again")
        evaluate(linked, settings, device=options.device, progress=quiet)
    record = read_record(linked)
    number = [arm.training_key for arm in arms_of(linked)].index(winner.training_key)
    trials = [trial for trial in arm_trials(linked.trials()) if trial.state is TrialState.COMPLETE]
    by_seed = {trial.user_attrs["seed"]: trial for trial in trials if trial.user_attrs["arm"] == number}
    searched = study.hyperparameters.searched()
    assert winner.search_accuracy is not None, "it was searched"
    return Result(
        arm=name,
        key=key,
        study=study.name,
        validation=winner.search_accuracy,
        settings={setting: winner.hyperparameters[setting] for setting in searched},
        test={str(seed): record.accuracies[by_seed[seed].number] for seed in seeds if seed in by_seed},
        test_images=record.images,
        commit=code_commit(),
    )


def paired_contrasts(
    samples: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], *, resolution: float
) -> list[Contrast]:
    """Return differences of means, first minus second, of arms with the same seeds, corrected for all `pairs`.

    What a seed does to all arms alike is taken off: a two-way layout of arms and seeds. What is left of an arm gives
    its variance, drawn towards the others' as `confirm` does it; of two arms alone it is the paired t-test. P-values
    are after Holm, intervals hold for all pairs at once.

    Args:
        samples: accuracies, fractions: two arms or more, two seeds or more, the same number in each.
        resolution: the smallest step between two accuracies, above 0.
    """
    table = np.array(samples)
    arms, seeds = table.shape
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    own_freedom = np.full(arms, (seeds - 1) * (arms - 1) / arms)
    variances = np.maximum((left**2).sum(axis=1) / own_freedom, resolution**2 / 12)
    moderated, freedom = moderated_variances(variances, own_freedom)
    first, second = np.array(pairs).T
    differences = table.mean(axis=1)[first] - table.mean(axis=1)[second]
    errors = np.sqrt((moderated[first] + moderated[second]) / seeds)
    shared = np.minimum(freedom[first], freedom[second])
    adjusted = holm([float(p) for p in 2 * scipy.stats.t.sf(np.abs(differences) / errors, shared)])
    critical = scipy.stats.t.ppf(1 - LEVEL / 2 / len(pairs), shared)
    return [
        Contrast(
            difference=Estimate(value=float(d), low=float(d - c * e), high=float(d + c * e)),
            p_value=p,
            detectable=float((c + scipy.stats.t.ppf(0.8, f)) * e),
        )
        for d, e, c, f, p in zip(differences, errors, critical, shared, adjusted, strict=True)
    ]


def ranking(tested: Sequence[Result], seeds: int) -> str:
    """Return the table of all arms, the best first, and in words which differences can be told."""
    ranked = sorted(tested, key=lambda one: (-fmean(one.accuracies or [0.0]), one.arm))
    compared = [one for one in ranked if len(one.test) == seeds]
    against = {name: _against(name, compared) for name in REFERENCES}
    lines = [f"{'':3} {'':22} {'test, %':>21} {'n':>2}  {'minus kd, points':>24} {'minus plain, points':>24}"]
    for place, one in enumerate(ranked, start=1):
        shown = f"{place:3} {one.arm:22} {_mean(one.accuracies):>21} {len(one.test):2}"
        cells = [_difference(found.get(one.arm)) for found in against.values()]
        lines.append("  ".join([shown, " ".join(f"{cell:>24}" for cell in cells)]).rstrip())
    for one in ranked:
        chosen = ", ".join(f"{key} {_short(value)}" for key, value in one.settings.items())
        lines.append(f"{one.arm}: {100 * one.validation:.1f} % on validation with {chosen}")
    if diverged := [one.arm for one in ranked if one not in compared]:
        lines.append(f"A training diverged, so that it is compared with none: {', '.join(diverged)}.")
    lines += [_sentence(name, found, seeds) for name, found in against.items() if found]
    return "\n".join([*lines, *_tied_with_the_best(compared)])


def _against(reference: str, compared: Sequence[Result]) -> dict[str, Contrast]:
    """Return the contrasts of all others with an arm, by name; none where that arm is not there."""
    names = [one.arm for one in compared]
    if reference not in names or len(names) < 2:
        return {}
    others = [name for name in names if name != reference]
    pairs = [(names.index(name), names.index(reference)) for name in others]
    return dict(zip(others, _contrasts(compared, pairs), strict=True))


def _contrasts(compared: Sequence[Result], pairs: Sequence[tuple[int, int]]) -> list[Contrast]:
    samples = [one.accuracies for one in compared]
    return paired_contrasts(samples, pairs, resolution=1 / compared[0].test_images)


def _sentence(reference: str, found: Mapping[str, Contrast], seeds: int) -> str:
    told = {name: contrast for name, contrast in found.items() if contrast.significant}
    better = [name for name, contrast in told.items() if contrast.difference.value > 0]
    worse = [name for name in told if name not in better]
    tied = [name for name in found if name not in told]
    parts = [f"{word} {', '.join(names)}" for word, names in (("better", better), ("worse", worse)) if names]
    parts += [f"a tie, since it cannot be told: {', '.join(tied)}"] if tied else []
    how = f"{counted(len(found), 'comparison')}, paired by {seeds} seeds, {100 * LEVEL:.0f} % for all after Holm"
    return f"Against {reference} ({how}): {'; '.join(parts)}."


def _tied_with_the_best(compared: Sequence[Result]) -> list[str]:
    """Say what cannot be told from the first; because that was chosen after the fact, all pairs count."""
    if len(compared) < 2:
        return []
    pairs = list(combinations(range(len(compared)), 2))
    found = zip(pairs, _contrasts(compared, pairs), strict=True)
    tied = [compared[pair[1]].arm for pair, contrast in found if pair[0] == 0 and not contrast.significant]
    best = compared[0].arm
    corrected = f"corrected for all pairs of {len(compared)}"
    if not tied:
        return [f"{best} is better than every other ({corrected})."]
    return [f"The first, {best}, cannot be told from {', '.join(tied)} ({corrected})."]


def _mean(sample: Sequence[float]) -> str:
    if len(sample) < 2:
        return "diverged"
    found = t_interval(sample).within(0, 1)
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _difference(contrast: Contrast | None) -> str:
    if contrast is None:
        return "-"
    found = contrast.difference
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def finished(output: Path) -> list[Result]:
    """Return the lines of the output file. Raises UsageError where it is something else, or has no place."""
    if not output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}; make it, or give another --output")
    try:
        written = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
        return [Result(**json.loads(line)) for line in written]
    except (OSError, ValueError, TypeError):
        raise UsageError(f"{output} was not written by this benchmark; give another --output") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a study file")
    parser.add_argument("--objectives", nargs="+", choices=list(own_settings()), metavar="NAME", help="default: all")
    parser.add_argument("--trials", type=int, help="of each search; default: the study file's n_trials")
    parser.add_argument("--seeds", type=int, default=5, help="fresh ones, of each winner")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("objectives.jsonl"))
    parser.add_argument("--sampler-seed", type=int, help="default: the study file's")
    parser.add_argument("--storage", help="as for igkd-hpo launch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--allow-import", nargs="+", default=[], help="modules that the study file may name")
    options = parser.parse_args(arguments)
    if options.seeds < 2 or options.workers < 1:
        parser.error("--seeds takes 2 or more, --workers 1 or more")
    try:
        return compare(options)
    except (IgkdError, Interrupted) as error:
        print(error, file=sys.stderr)
        return 1


def compare(options: argparse.Namespace) -> int:
    """Run the arms that are not finished, print the ranking of all that are; 1 where one diverged, or there is none.

    Raises:
        IgkdError: what is wrong with the study file, its images or teacher, the database or the output file.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    settings = settings_here(options.storage, options.allow_import)
    base = read_study(options.study)
    options.trials = base.n_trials if options.trials is None else options.trials
    seed = base.sampler.seed if options.sampler_seed is None else options.sampler_seed
    lines = finished(options.output)
    tested, failed = [], False
    for name in own_settings():
        try:
            study = arm_study(base, name, sampler_seed=seed)
            key = f"{fingerprint(study)[:12]}, {options.trials} trials, {options.seeds} seeds"
            found = next((line for line in lines if (line.arm, line.key) == (name, key)), None)
            if found is None and (options.objectives is None or name in options.objectives):
                print(f"{name} …", file=sys.stderr, flush=True)
                found = run_arm(name, study, options, settings, key)
                lines.append(found)
                write_output(options.output, "".join(f"{json.dumps(vars(line))}\n" for line in lines).encode())
        except StudyFileError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        except (NoCompletedTrial, StudyStopped) as error:
            failed = True
            print(f"{name} failed: {error}", file=sys.stderr)
        else:
            tested += [found] if found is not None else []
    if tested:
        print(ranking(tested, options.seeds))
    return int(failed or not tested)


if __name__ == "__main__":
    sys.exit(main())
