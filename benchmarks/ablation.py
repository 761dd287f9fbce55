"""What each part of the method adds: the paper's recipe, this project's, the steps between, and the negative controls.

    python benchmarks/ablation.py digits
    python benchmarks/ablation.py CIFAR_FOLDER --teacher teacher.pt               # small: an hour of one core
    python benchmarks/ablation.py CIFAR_FOLDER --full --device cuda --check       # 100 epochs, 543,498 parameters

CIFAR_FOLDER holds train/<class>/* and test/<class>/*. Every arm has the same images, teacher, maps and seeds, and is
trained by the code that trains a trial. The test split is looked at once for each student, after its last epoch, and
nothing is chosen by it. Finished trainings are lines of the output file; the same command goes on where it stopped, and
with more `--seeds` adds to what is there. `--arms` trains some of the arms alone.
"""

import argparse
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from igkd_hpo.assets.study_assets import AssetSummary, open_assets, prepare_assets
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.statistics import Contrast, contrasts, t_interval
from igkd_hpo.distillation.device import choose_device
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.distillation.training import NonFiniteLoss
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.terminal.progress import make_progress
from igkd_hpo.trial.build import make_trial

GOAL = 0.015  # gain over the reference recipe, as a fraction
VALIDATION = 0.1  # share of the training images; nothing is chosen by it here, but every study has one

# What the two recipes fix; the learning rate of ours is for batches of 128.
PAPER: dict[str, Any] = {
    "training": {"optimizer": "adam", "schedule": "constant"},
    "student": {"normalize": "none"},
    "hyperparameters": {"learning_rate": 1e-3, "weight_decay": 0.0, "batch_size": 64, "temperature": 2.5},
}
OURS: dict[str, Any] = {
    "training": {"optimizer": "sgd", "schedule": "one_cycle"},
    "student": {"normalize": "dataset"},
    "hyperparameters": {"learning_rate": 0.1, "weight_decay": 5e-4, "batch_size": 128, "temperature": 4.0},
}
KD_PAPER, KD, IG, AT = {"alpha": 0.01}, {"alpha": 0.9}, {"overlay_probability": 0.1}, {"attention_weight": 1.0}
SHUFFLED = {"alignment": "reference_shuffled"}


class Arm(NamedTuple):
    """One configuration."""

    group: str
    recipe: dict[str, Any]
    changes: dict[str, Any]  # of the hyperparameters


ARMS: dict[str, Arm] = {
    "reference": Arm("the paper's recipe", PAPER, KD_PAPER | IG | SHUFFLED),
    "paper-student": Arm("the paper's recipe", PAPER, {}),
    "paper-kd": Arm("the paper's recipe", PAPER, KD_PAPER),
    "paper-ig": Arm("the paper's recipe", PAPER, IG),
    "paper-kd_ig": Arm("the paper's recipe", PAPER, KD_PAPER | IG),
    "step-optimizer": Arm("from the paper's to ours", OURS, KD_PAPER | IG | {"temperature": 2.5}),
    "student": Arm("our recipe", OURS, {}),
    "kd": Arm("our recipe", OURS, KD),
    "ig": Arm("our recipe", OURS, IG),
    "kd_ig": Arm("our recipe", OURS, KD | IG),
    "at": Arm("our recipe", OURS, AT),
    "kd_at": Arm("our recipe", OURS, KD | AT),
    "ig_at": Arm("our recipe", OURS, IG | AT),
    "kd_ig_at": Arm("our recipe", OURS, KD | IG | AT),
    "kd-shuffled": Arm("negative controls", OURS, KD | SHUFFLED),
    "kd_ig-permuted_maps": Arm("negative controls", OURS, KD | IG | {"alignment": "permuted_maps"}),
    "kd_ig-smooth_noise": Arm("negative controls", OURS, KD | IG | {"alignment": "smooth_noise"}),
    "kd_ig-mean_map": Arm("negative controls", OURS, KD | IG | {"alignment": "mean_map"}),
    "kd_ig-multiply": Arm("one change to kd_ig", OURS, KD | IG | {"overlay_mode": "multiply"}),
    "kd_ig-background": Arm("one change to kd_ig", OURS, KD | IG | {"overlay_mode": "background"}),
    "kd_ig-ema": Arm("one change to kd_ig", OURS, KD | IG | {"ema_decay": None}),
    "kd_ig-cutout": Arm("one change to kd_ig", OURS, KD | IG | {"cutout": 8}),
    "kd_ig-alternating": Arm("one change to kd_ig", OURS, KD | IG | {"flip": "alternating"}),
    "kd_ig-decay_weights": Arm("one change to kd_ig", OURS, KD | IG | {"decay": "weights"}),
    "student-label_smoothing": Arm("one change to student", OURS, {"label_smoothing": 0.1}),
}


class Question(NamedTuple):
    """A difference of two arms that somebody asks for."""

    says: str
    arm: str
    than: str


QUESTIONS = [
    Question("KD adds, to plain training", "kd", "student"),
    Question("KD adds, to IG", "kd_ig", "ig"),
    Question("IG adds, to plain training", "ig", "student"),
    Question("IG adds, to KD", "kd_ig", "kd"),
    Question("attention transfer adds, to plain training", "at", "student"),
    Question("attention transfer adds, to KD and IG", "kd_ig_at", "kd_ig"),
    Question("KD adds, in the paper's recipe, aligned", "paper-kd", "paper-student"),
    Question("IG adds, in the paper's recipe, aligned", "paper-ig", "paper-student"),
    Question("KD and IG add, in the paper's recipe as published", "reference", "paper-student"),
    Question("alignment adds, to the paper's recipe", "paper-kd_ig", "reference"),
    Question("one-cycle SGD and normalised inputs add, to that", "step-optimizer", "paper-kd_ig"),
    Question("alpha 0.9 at temperature 4 adds, to that", "kd_ig", "step-optimizer"),
    Question("our recipe adds, to the reference", "kd_ig", "reference"),
    Question("aligned logits add, to shuffled ones (KD alone)", "kd", "kd-shuffled"),
    *(
        Question(f"the image's own map adds, to {what}", "kd_ig", f"kd_ig-{control}")
        for control, what in (
            ("permuted_maps", "another image's"),
            ("smooth_noise", "smooth noise"),
            ("mean_map", "the mean map"),
        )
    ),
    *(
        Question(f"{name.split('-')[1]} adds, to {name.split('-')[0]}", name, name.split("-")[0])
        for name, arm in ARMS.items()
        if arm.group.startswith("one change")
    ),
]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all arms share.

    Args:
        data: folder of images; None takes digits.
        teacher: a state dict of a MobileNet-V2; None trains one here.
        images: to train on, about; None takes all.
        test_images: to test on, about; None takes all.
        layers_removed, width: of the student.
        seeds: 0 to this number less one.
        batch_size: of our recipe, whose learning rate goes with it; None takes 128. The paper's is 64.
        ema_decay: of the arm that has one: an average over about two epochs.
    """

    data: Path | None
    teacher: Path | None
    teacher_normalize: str
    images: int | None
    test_images: int | None
    epochs: int
    width: float
    layers_removed: int
    seeds: int
    batch_size: int | None
    ema_decay: float


SMALL = {
    "images": 1000, "test_images": 2000, "epochs": 10, "width": 0.25, "seeds": 3, "batch_size": 64, "ema_decay": 0.97
}  # fmt: skip
FULL = {
    "images": None, "test_images": None, "epochs": 100, "width": 1.0, "seeds": 5, "batch_size": None, "ema_decay": 0.999
}  # fmt: skip


def study_of(name: str, protocol: Protocol, images: Path | None, *, trainings: int) -> Study:
    """The study file of an arm; `trainings` in all decide whether a table of logits pays."""
    arm = ARMS[name]
    recipe = arm.recipe["hyperparameters"]
    shared = {"alpha": 0.0, "overlay_probability": 0.0, "overlay_strength": 0.5, "width": protocol.width}
    values = shared | recipe | arm.changes | {"layers_removed": protocol.layers_removed}
    if protocol.batch_size is not None and arm.recipe is OURS:
        values["learning_rate"] *= protocol.batch_size / values["batch_size"]
        values["batch_size"] = protocol.batch_size
    if "ema_decay" in values:
        values["ema_decay"] = protocol.ema_decay
    digits = protocol.data is None
    dataset: dict[str, Any] = {"name": "digits"} if digits else {"name": "folder", "root": str(images)}
    if digits and "cutout" in arm.changes:
        values["cutout"] = 2  # of 8 pixels
    teacher: dict[str, Any] = {"width": protocol.width if digits else 1.0, "epochs": 15 if digits else protocol.epochs}
    if protocol.teacher is not None:
        teacher |= {"checkpoint": str(protocol.teacher), "normalize": protocol.teacher_normalize}
    document = {
        "name": f"ablation-{name}",
        "dataset": dataset | {"validation_fraction": VALIDATION},
        "teacher": teacher,
        "student": arm.recipe["student"],
        "attribution": {"n_steps": 16},
        "augmentation": {"crop_padding": 1 if digits else 4, "horizontal_flip": not digits},
        "training": arm.recipe["training"] | {"epochs": protocol.epochs},
        "hyperparameters": values,
        "pruner": {"name": "none"},
        "controls": [],
        "n_trials": trainings,
    }
    return Study.model_validate_json(json.dumps(document))


def take(data: Path, images: int | None, test_images: int | None, folder: Path) -> Path:
    """A folder with the first images of each class; the whole one where all are wanted."""
    if images is None and test_images is None:
        return data
    target = folder / f"images-{images or 'all'}-{test_images or 'all'}"
    if target.exists():
        return target
    part = target.with_name(target.name + ".part")
    for split, wanted in (("train", images and images / (1 - VALIDATION)), ("test", test_images)):
        classes = sorted(path for path in (data / split).glob("*") if path.is_dir())
        for source in classes:
            (part / split / source.name).mkdir(parents=True, exist_ok=True)
            files = sorted(path for path in source.iterdir() if path.is_file())
            for file in files[: round(wanted / len(classes)) if wanted else None]:
                shutil.copyfile(file, part / split / source.name / file.name)
    part.rename(target)
    return target


def key(study: Study, assets: AssetSummary, device: str) -> str:
    """What a line of the output file must have in common with a training to stand for it."""
    parts = (fingerprint(study), assets.dataset_sha256, assets.teacher_sha256, device)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def finished(output: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The lines of the output file by arm, key and seed; what a crash cut off is left out."""
    found = {}
    for text in output.read_text(encoding="utf-8").splitlines() if output.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["arm"], line["key"], line["seed"]] = line
    return found


def append(output: Path, line: dict[str, Any]) -> None:
    """Write a line in one piece, on a line of its own."""
    text = output.read_text(encoding="utf-8") if output.exists() else ""
    with output.open("a", encoding="utf-8") as file:
        file.write(("\n" if text and not text.endswith("\n") else "") + json.dumps(line) + "\n")


def train(study: Study, settings: Settings, seed: int, device: torch.device) -> dict[str, Any]:
    """One training and its test."""
    trial = make_trial(study, study.hyperparameters.fixed(), open_assets(study, settings), seed=seed, device=device)
    seconds = 0.0
    try:
        for epoch in trial.training.epochs():
            seconds += epoch.seconds
    except NonFiniteLoss as error:
        return {"diverged_in_epoch": error.epoch, "n_test": 1}
    images, labels = open_test(study.dataset, settings, purpose=TestPurpose.BENCHMARK)
    return {
        "n_test": len(labels),
        "test_accuracy": accuracy(predict(trial.training.network, images, device=device), labels),
        "validation_accuracy": epoch.validation_accuracy,
        "train_loss": epoch.train_loss,
        "parameters": count_parameters(trial.training.network),
        "seconds": round(seconds, 1),
    }


def sentence(question: Question, found: Contrast, n: int) -> str:
    """What the difference says, and whether its sign can be told."""
    points = [100 * end for end in (found.difference.value, found.difference.low, found.difference.high)]
    told = "" if found.significant else f"; whether it helps or harms cannot be told from {n} seeds"
    return "{}: {:+.1f} points (95 % interval {:+.1f} to {:+.1f}){}".format(question.says, *points, told)


def results(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Table, sentences and goals; an arm with one training has no interval, and answers no question."""
    samples: dict[str, list[float]] = {}
    diverged: dict[str, int] = {}
    for line in lines:
        if "test_accuracy" in line:
            samples.setdefault(line["arm"], []).append(line["test_accuracy"])
        else:
            diverged[line["arm"]] = diverged.get(line["arm"], 0) + 1
    table = []
    for name, arm in ARMS.items():
        sample = samples.get(name, [])
        if sample or name in diverged:
            row = {"arm": name, "group": arm.group, "n": len(sample), "diverged": diverged.get(name, 0)}
            mean = {"value": fmean(sample)} if sample else {}
            table.append(row | (asdict(t_interval(sample)) if len(sample) > 1 else mean))
    usable = [name for name in ARMS if len(samples.get(name, [])) > 1]
    asked = [question for question in QUESTIONS if {question.arm, question.than} <= {*usable}]
    found = contrasts(
        [samples[name] for name in usable],
        [(usable.index(question.arm), usable.index(question.than)) for question in asked],
        resolution=1 / max(line["n_test"] for line in lines),
    )
    goals = {}
    for question, contrast in zip(asked, found, strict=True):
        if (question.arm, question.than) == ("kd_ig", "reference"):
            goals[f"our recipe adds {100 * GOAL:.1f} points or more to the reference"] = (
                contrast.difference.value >= GOAL
            )
        if (question.arm, question.than) == ("kd", "kd-shuffled"):
            goals["aligned logits beat shuffled ones by more than the interval"] = contrast.difference.low > 0
    return {
        "table": table,
        "sentences": [
            sentence(question, contrast, min(len(samples[question.arm]), len(samples[question.than])))
            for question, contrast in zip(asked, found, strict=True)
        ],
        "goals": goals,
    }


def facts(device: torch.device) -> dict[str, str]:
    """Where the figures come from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "hardware": f"{name}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": (code_commit() or "unknown")[:9],
    }


def run(protocol: Protocol, arms: Sequence[str], output: Path, device: torch.device) -> dict[str, Any]:
    """Train what is not there yet, one seed of every arm after the other."""
    where = facts(device)  # of the code that is running, whatever is checked out meanwhile
    folder = output.with_suffix("")
    settings = Settings(paths=Paths(root=folder), storage_url="", data_root=Path.cwd(), allow_import=frozenset())
    folder.mkdir(parents=True, exist_ok=True)
    images = None
    if protocol.data is not None:
        images = take(protocol.data.absolute(), protocol.images, protocol.test_images, folder)
    trainings = protocol.seeds * len(arms)
    studies = {name: study_of(name, protocol, images, trainings=trainings) for name in arms}
    first = next(iter(studies.values()))
    most = {part: max(getattr(study.hyperparameters, part) for study in studies.values()) for part in (*KD, *IG)}
    needs = first.model_copy(update={"hyperparameters": first.hyperparameters.model_copy(update=most)})
    with make_progress() as progress:
        summary = prepare_assets(needs, settings, device=str(device), progress=progress)
    wanted = [(name, key(studies[name], summary, device.type), seed) for seed in range(protocol.seeds) for name in arms]
    for name, mark, seed in wanted:
        if (name, mark, seed) in finished(output):  # read anew: another process may be at other arms
            continue
        line = {"arm": name, "seed": seed, "key": mark, "commit": where["commit"]} | train(
            studies[name], settings, seed, device
        )
        append(output, line)
        print(f"{name}, seed {seed}: {line.get('test_accuracy', 'diverged')}", file=sys.stderr)
    done = finished(output)
    shared = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(protocol).items()}
    measured = {"teacher_validation_accuracy": summary.teacher_accuracy, "n_train": summary.n_train}
    return {"protocol": shared} | measured | where | results([done[which] for which in wanted])


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(f"{found['n_train']} training images, {found['protocol']['epochs']} epochs; {found['hardware']}, "
          f"torch {found['torch']}, commit {found['commit']}")  # fmt: skip
    print(f"the teacher's validation accuracy: {found['teacher_validation_accuracy']:.1%}")
    group = None
    for row in found["table"]:
        if row["group"] != group:
            group = row["group"]
            print(f"\n{group:28} {'test accuracy, %':>18} {'95 % interval':>16}    n")
        diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
        if row["n"] == 0:
            print(f"  {row['arm']:26} {'':>18} {'':>16} {0:4}{diverged}")
            continue
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" if row["n"] > 1 else ""
        print(f"  {row['arm']:26} {100 * row['value']:18.2f} {interval:>16} {row['n']:4}{diverged}")
    print("\nThe intervals of the differences hold for all of them at once.")
    for line in found["sentences"]:
        print(line)
    for goal, holds in found["goals"].items():
        print(f"{'reached' if holds else 'MISSED ':28} {goal}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", help="digits, or a folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--teacher", type=Path, help="state dict of a MobileNet-V2; without it one is trained here")
    parser.add_argument(
        "--teacher-normalize", choices=("none", "dataset"), default="none", help="of that teacher's input"
    )
    parser.add_argument("--full", action="store_true", help="100 epochs, all images, full width, 5 seeds: for CUDA")
    parser.add_argument("--arms", help=f"some of: {', '.join(ARMS)}; with commas")
    parser.add_argument("--output", type=Path, default=Path("storage/ablation.jsonl"), help="one line per training")
    parser.add_argument("--device", default="cpu")
    for name in ("images", "test-images", "epochs", "seeds"):
        parser.add_argument(f"--{name}", type=int, help="instead of the protocol's")
    parser.add_argument("--width", type=float, help="of the student")
    parser.add_argument("--layers-removed", type=int, default=5, help="blocks cut from the student's end")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args(arguments)
    arms = options.arms.split(",") if options.arms else list(ARMS)
    if unknown := sorted(set(arms) - set(ARMS)):
        parser.error(f"there is no arm {', '.join(unknown)}; there are {', '.join(ARMS)}")
    given = {name: getattr(options, name) for name in ("images", "test_images", "epochs", "seeds", "width")}
    protocol = Protocol(
        data=None if options.data == "digits" else Path(options.data),
        teacher=options.teacher,
        teacher_normalize=options.teacher_normalize,
        layers_removed=options.layers_removed,
        **((FULL if options.full else SMALL) | {name: value for name, value in given.items() if value is not None}),
    )
    device = choose_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    keep_freed_memory()
    found = run(protocol, arms, options.output, device)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return int(options.check and not all(found["goals"].values()))


if __name__ == "__main__":
    sys.exit(main())
