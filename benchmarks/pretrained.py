"""What pretrained weights bring a student: the same study from `pretrained` and from `random`, each at its best rate.

    python benchmarks/pretrained.py --weights lite0.pth                       # on patches, which need no download
    python benchmarks/pretrained.py FOLDER --size 96 --weights lite0.pth      # FOLDER holds train/ and test/

The weights are ImageNet's of the student's network. Each initialisation gets the learning rate whose trainings with
two seeds validate best; with that, fresh seeds are trained and tested once each. `--check` fails where pretrained
weights are not better by the goal.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path
from statistics import fmean

import torch

from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import Assets, student_request
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.assets.weights import prepare_weights
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.statistics import contrasts, t_interval
from igkd_hpo.distillation.device import processor
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.training import Training
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.terminal.progress import make_progress
from igkd_hpo.trial.build import make_student, recipe_of

GOAL = 0.10  # of test accuracy, a fraction
RATES = (0.005, 0.02, 0.08)
CHOOSING = (1000, 1001)  # seeds that choose a rate, and nothing else
CPU = torch.device("cpu")


def make_study(options: argparse.Namespace, init: str, rate: float) -> Study:
    """Return a study of one configuration."""
    dataset = {"name": "patches"} if options.folder is None else {"name": "folder", "root": options.folder}
    return Study.model_validate(
        {
            "name": "pretrained",
            "dataset": {**dataset, "image_size": options.size, "validation_fraction": 0.2},
            "student": {"architecture": options.student, "weights": options.weights, "normalize": "weights"},
            "training": {"epochs": options.epochs},
            "hyperparameters": {
                "temperature": 1.0, "alpha": 0.0, "overlay_probability": 0.0, "overlay_strength": 0.0,
                "learning_rate": rate, "batch_size": 32, "init": init,
            },
            "controls": (),
        },
        strict=False,
    )  # fmt: skip


def open_all(options: argparse.Namespace, root: Path) -> Assets:
    """Make the images and the weights; a teacher is not needed."""
    study, data_root = make_study(options, "pretrained", RATES[0]), Path.cwd()
    settings = Settings(paths=Paths(root=root), storage_url="", data_root=data_root, allow_import=frozenset())
    store = AssetStore(settings.paths.assets)
    with make_progress(True) as progress:
        dataset = prepare_dataset(study.dataset, settings, store, progress)
        request = student_request(options.student, dataset, settings)
        weights = prepare_weights(request, options.weights, settings, store, progress, key="student.weights")
    return Assets(
        study=study,
        settings=settings,
        dataset=dataset,
        teacher_sha256="",
        teacher_parameters=1,
        teacher_threads=None,
        logits=None,
        maps=None,
        weights={options.student: weights},
    )


def train(options: argparse.Namespace, assets: Assets, init: str, rate: float, seed: int) -> tuple[Training, float]:
    """Train one student; return it with its validation accuracy."""
    study = make_study(options, init, rate)
    values = study.hyperparameters.fixed()
    student, pretrained = make_student(study, values, assets, seed=seed)
    execution = Execution(
        device="cpu", threads=1, precision="float32", memory_format="channels_last", compile="none", torch=""
    )
    recipe = recipe_of(study, values, execution, seed=seed)
    training = Training(student, assets.training_data(), recipe, device=CPU, teaching=None, pretrained=pretrained)
    return training, [epoch.validation_accuracy for epoch in training.epochs()][-1]


def main() -> int:
    """Print what each rate came to, and the difference between the two initialisations with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--weights", required=True, metavar="FILE")
    parser.add_argument("--student", default="timm/tf_efficientnet_lite0", metavar="NAME")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor(CPU)}, Python {platform.python_version()}, torch {torch.__version__}, commit {code_commit()}")
    tested: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        assets = open_all(options, Path(folder))
        images, labels = open_test(assets.study.dataset, assets.settings, purpose=TestPurpose.BENCHMARK)
        for init in ("pretrained", "random"):
            reached = {r: fmean(train(options, assets, init, r, seed)[1] for seed in CHOOSING) for r in RATES}
            print(f"{init}: validation by rate { ({r: round(value, 3) for r, value in reached.items()}) }", flush=True)
            rate = max(reached, key=reached.__getitem__)
            trained = (train(options, assets, init, rate, seed)[0] for seed in range(options.seeds))
            tested[init] = [accuracy(predict(one.network, images, device=CPU), labels) for one in trained]
            mean = t_interval(tested[init])
            print(f"{init} at {rate}: {mean.value:.1%} on test ({mean.low:.1%} to {mean.high:.1%}), n {options.seeds}")
    found = contrasts([tested["pretrained"], tested["random"]], [(0, 1)], resolution=1 / len(labels))[0].difference
    print(f"pretrained - random: {found.value:+.1%} ({found.low:+.1%} to {found.high:+.1%})")
    return int(options.check and found.low < GOAL)


if __name__ == "__main__":
    sys.exit(main())
