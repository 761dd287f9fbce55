"""Compare settings of one study: each arm is its file with some values changed, trained with the same seeds.

    python benchmarks/arms.py shop.yaml --arm plain alpha=0 --arm kd alpha=0.9 --arm kd-60 alpha=0.9 training.epochs=60
    python benchmarks/arms.py shop.yaml --arm plain alpha=0 --arm kd alpha=0.9 --seeds 0 1 2 3 4 --test

The study must be prepared (`igkd-hpo prepare shop.yaml`); all arms share its images, teacher, table and maps. What is
searched in the file takes the middle of its range unless an arm fixes it. Without `--test` the accuracies are those of
the validation split, by which an arm may be chosen; with it the sealed test split is looked at once for each student,
after its last epoch, and once for the teacher, which is what students could come to. Finished trainings are lines of
the output file, and the same command goes on where it stopped; two of them, with other seeds, can run side by side.
"""

import argparse
import json
import time
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from igkd_hpo.assets.study_assets import open_assets
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.reading import read_study, study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.statistics import contrasts, t_interval
from igkd_hpo.distillation.device import choose_device
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_trial


def changed(study: Study, changes: list[str]) -> Study:
    """The study with `key=value` changed: a hyperparameter, or another key by its path."""
    document = json.loads(study.model_dump_json())
    for change in changes:
        path, _, text = change.partition("=")
        *sections, key = path.split(".") if "." in path else ("hyperparameters", path)
        part = document
        for section in sections:
            part = part[section]
        part[key] = yaml.safe_load(text)
    return study_from_json(json.dumps(document), source="the study with this arm's values")


def train(study: Study, settings: Settings, seed: int, device: torch.device, *, test: bool) -> dict[str, Any]:
    """One training, and what it came to."""
    assets = open_assets(study, settings)
    trial = make_trial(study, study.hyperparameters.middle(), assets, seed=seed, device=device)
    begun = time.perf_counter()
    curve = [round(metrics.validation_accuracy, 4) for metrics in trial.training.epochs()]
    result: dict[str, Any] = {
        "validation_accuracy": curve[-1],
        "validation_images": len(assets.dataset.validation_labels),
        "curve": curve,
        "parameters": count_parameters(trial.training.network),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    if test:
        images, labels = open_test(study.dataset, settings, purpose=TestPurpose.BENCHMARK)
        answers = predict(trial.training.network, images, device=device)
        result |= {"test_accuracy": accuracy(answers, labels), "test_images": len(labels)}
    return result


def print_teacher(study: Study, settings: Settings, device: torch.device) -> None:
    """Print how many of the test images, in its own size, the study's teacher gets right; of several, the first."""
    own = study.teacher.input_size or study.dataset.image_size
    shown = study.dataset.model_copy(update={"image_size": own})
    images, labels = open_test(shown, settings, purpose=TestPurpose.BENCHMARK)
    network = open_assets(study, settings).teachers.members[0].network
    answers = predict(network.to(device), images, device=device)
    print(f"{'the teacher':24s} {100 * accuracy(answers, labels):5.1f} % on test")


def finished(output: Path) -> list[dict[str, Any]]:
    """The lines of the output file."""
    return [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def table(lines: list[dict[str, Any]], measure: str) -> None:
    """Print each arm's mean with its interval, and all differences."""
    samples: dict[str, list[float]] = {}
    for line in lines:
        if measure in line:
            samples.setdefault(line["arm"], []).append(line[measure])
    for arm, sample in samples.items():
        interval = ""
        if len(sample) > 1:
            within = t_interval(sample)
            interval = f" ({100 * within.low:.1f} to {100 * within.high:.1f})"
        print(f"{arm:24s} {100 * fmean(sample):5.1f} %{interval}, n {len(sample)}")
    names = [arm for arm, sample in samples.items() if len(sample) > 1]
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return
    images = max(line[measure.replace("accuracy", "images")] for line in lines if measure in line)
    found_all = contrasts([samples[name] for name in names], pairs, resolution=1 / images)
    for (one, other), found in zip(pairs, found_all, strict=True):
        gain = found.difference
        told = "" if found.significant else "; cannot be told"
        ends = f"{-100 * gain.high:+.1f} to {-100 * gain.low:+.1f}"
        print(f"{names[other]} - {names[one]}: {-100 * gain.value:+.1f} points ({ends}){told}")


def main() -> None:
    """Train what is not there yet, one seed of every arm after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--arm", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("arms.jsonl"))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    device, settings = choose_device(options.device), Settings.resolve()
    base = read_study(options.study)
    for seed in options.seeds:
        for name, *changes in options.arm:
            done = {(line["arm"], line["seed"], tuple(line["changes"])) for line in finished(options.output)}
            if (name, seed, tuple(changes)) in done:
                continue
            result = train(changed(base, changes), settings, seed, device, test=options.test)
            line = {"arm": name, "seed": seed, "changes": changes, "commit": code_commit(), **result}
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(name, seed, json.dumps({key: result[key] for key in result if key != "curve"}), flush=True)
    names = {name for name, *_ in options.arm}
    lines = [line for line in finished(options.output) if not names or line["arm"] in names]
    table(lines, "test_accuracy" if options.test else "validation_accuracy")
    if options.test:
        print_teacher(base, settings, device)


if __name__ == "__main__":
    main()
