"""What attention transfer costs a training: a teacher in each step, or the table of its attention, beside KD alone.

    python benchmarks/attention_table.py --rounds 5

`timm/lcnet_050` learns from EfficientNet-Lite0 on random images of 96 pixels, 8 crops of each; the epochs of the three
trainings take turns. Logits are in a table in all three. Networks and images are random, which changes no time.
"""

import argparse
import math
import platform
import time
from statistics import median

import timm
import torch

from igkd_hpo.config.commit import code_commit
from igkd_hpo.distillation.attention_table import AttentionTable
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.device import processor
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe, make_recipe, plain_values
from igkd_hpo.distillation.taps import ByStride
from igkd_hpo.distillation.teaching import CachedLogits
from igkd_hpo.distillation.training import Training

SIZE, VIEWS, CLASSES, CPU = (96, 96), 8, 31, torch.device("cpu")


def network(name: str) -> Network:
    """A network of timm with random weights."""
    return Network(timm.create_model(name, num_classes=CLASSES), [0.5] * 3, [0.3] * 3)


def recipe(attention: float, epochs: int) -> Recipe:
    """KD with this weight of attention transfer, at all strides."""
    settings = {
        "epochs": epochs, "batch_size": 64, "optimizer": "sgd", "schedule": "one_cycle", "learning_rate": 0.1,
        "weight_decay": 5e-4, "temperature": 2.0, "alpha": 0.5, "overlay_probability": 0.0, "overlay_strength": 0.0,
        "attention_weight": attention, "attention_depths": "stages" if attention else "middle", "crop_padding": 0,
        "horizontal_flip": True, "views": VIEWS, "scale": (0.35, 1.0), "mixed": None, "seed": 0,
        "precision": "float32", "channels_last": True, "compile": "none",
    }  # fmt: skip
    return make_recipe(plain_values() | settings)


def main() -> None:
    """Time the epochs and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--teacher", default="efficientnet_lite0", metavar="NAME")
    given = parser.parse_args()
    torch.set_num_threads(1)

    images = torch.randint(0, 256, (given.images, 3, *SIZE), dtype=torch.uint8)
    labels = torch.arange(given.images) % CLASSES
    data = TrainingData(
        images=images,
        labels=labels,
        maps=None,
        validation_images=images[:8],
        validation_labels=labels[:8],
        digests=torch.arange(given.images),
    )
    teacher = network(given.teacher).eval().requires_grad_(False)
    sizes = {stride: tap.size for stride, tap in ByStride(teacher, SIZE).taps.items()}
    positions = sum(math.prod(size) for size in sizes.values())
    table = AttentionTable(torch.rand(given.images, VIEWS, positions), sizes, VIEWS)
    arms = {
        "KD alone": (0.0, None),
        "attention, a teacher in each step": (10.0, None),
        "attention, table": (10.0, table),
    }
    epochs = {}
    for arm, (weight, of_table) in arms.items():
        training = Training(
            network("lcnet_050"),
            data,
            recipe(weight, given.rounds + 1),
            device=CPU,
            teaching=CachedLogits(torch.zeros(given.images, VIEWS, CLASSES).half(), VIEWS),
            teacher=teacher if weight else None,
            attention=of_table,
        )
        epochs[arm] = training.epochs()
        next(epochs[arm])  # the first allocates
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(given.rounds):
        for arm, rest in epochs.items():
            begun = time.perf_counter()
            next(rest)
            seconds[arm].append(time.perf_counter() - begun)

    print(f"commit {code_commit()}, Python {platform.python_version()}, torch {torch.__version__}, {processor(CPU)}")
    print(f"{positions} numbers a view; {given.rounds} epochs each of {given.images} images, one thread")
    alone = median(seconds["KD alone"])
    for arm, of_arm in seconds.items():
        spread = f"{min(of_arm):.2f} to {max(of_arm):.2f}"
        print(f"{arm:34} {median(of_arm):6.2f} s an epoch ({spread}), {median(of_arm) / alone:.2f} times KD alone")


if __name__ == "__main__":
    main()
