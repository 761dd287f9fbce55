"""What a search on `digits` needs, as one writes it without igkd-hpo: images, a teacher, its maps, one training.

The scripts beside it search with it, each with another tool; `../peers.py` runs and measures them. Student, teacher,
splits, views, loss, optimizer and schedule are those of igkd-hpo. Unlike there, the teacher is asked in each step: its
answer to a view that is cropped by chance is in no table; a sample at a time is cropped and overlaid by a DataLoader,
in the training's own process, since all cores are taken; and no training leaves a checkpoint.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.models import Network

BATCH, WEIGHT_DECAY = 64, 5e-4
STUDENT: dict[str, Any] = {"width": 0.25, "layers_removed": 5}
TEACHER: dict[str, Any] = {"width": 0.5}
IG_STEPS = 16
GRACE = 4  # epochs in which no search stops a trial
KEPT = 3  # one in so many goes on, where successive halving stops trials
Settings = dict[str, float]


def search_options() -> argparse.Namespace:
    """Parse what all searches are told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="for everything that is made; it exists")
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--teacher-epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True, help="of the sampler, and of trainings those after it")
    return parser.parse_args()


def read_digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return images (N, 3, 8, 8) in [0, 1] and labels, to train and to validate on; a fifth is put by for a test."""
    digits = load_digits()
    rows = np.arange(len(digits.target))
    for _ in ("test", "validation"):
        rows, held_out = train_test_split(rows, test_size=0.2, stratify=digits.target[rows], random_state=0)
        rows, held_out = np.sort(rows), np.sort(held_out)
    images = torch.from_numpy(digits.images).float().div(16)[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target)
    return (images[rows], labels[rows]), (images[held_out], labels[held_out])


class Views(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples, each cropped by chance: what the teacher is asked about, what the student sees, and the label."""

    def __init__(
        self, images: Tensor, labels: Tensor, maps: Tensor | None, probability: float = 0.0, strength: float = 0.0
    ) -> None:
        self.images, self.labels, self.maps = images, labels, maps
        self.probability, self.strength = probability, strength
        self.crop = v2.RandomCrop(8, padding=1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image, label = self.images[index], self.labels[index]
        if self.maps is None or torch.rand(()) >= self.probability:
            view = self.crop(image)
            return view, view, label
        raised = (self.maps[index] / self.maps[index].max()) ** (2 ** torch.rand(()))
        stretched = (raised - raised.min()) / (raised.max() - raised.min())
        both = self.crop(torch.cat([image, stretched[None]]))  # as one image, so that the map is cropped with it
        view, its_map = both[:3], both[3:]
        return view, (1 - self.strength) * view + self.strength * its_map, label


def make_network(images: Tensor, **knobs: Any) -> Network:
    """Return a fresh network that normalises its pixels with the statistics of the training images.

    Channels last, as PyTorch's tuning guide advises for a CPU: a step takes little more than half the time.
    """
    body = mobilenet_v2(num_classes=10, **knobs)
    network = Network(body, images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3)))
    return network.to(memory_format=torch.channels_last)


def make_optimizer(network: nn.Module, rate: float, steps: int) -> tuple[torch.optim.SGD, Any]:
    """Return the optimizer, and its schedule for so many steps."""
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)


@torch.no_grad()
def accuracy(network: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Return the share of right answers."""
    network.eval()
    right = sum(int((network(images).argmax(dim=1) == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)  # type: ignore[arg-type]


def prepare(folder: Path, epochs: int) -> None:
    """Train the teacher, and make the Integrated-Gradients maps of the training images, with one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (images, labels), held_out = read_digits()
    loader = DataLoader(Views(images, labels, None), BATCH, shuffle=True)
    teacher = make_network(images, **TEACHER)
    optimizer, schedule = make_optimizer(teacher, 0.05, epochs * len(loader))
    for _ in range(epochs):
        teacher.train()
        for pixels, _, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(teacher(pixels), targets).backward()
            optimizer.step()
            schedule.step()
    print(f"the teacher: {accuracy(teacher, DataLoader(TensorDataset(*held_out), 512)):.1%}", flush=True)
    torch.save(teacher.state_dict(), folder / "teacher.pt")
    teacher.eval()
    explain, mean = IntegratedGradients(teacher), teacher.mean.expand_as(images)
    parts = [
        explain.attribute(some, its_baseline, target=targets, n_steps=IG_STEPS).detach().abs().sum(dim=1)
        for some, its_baseline, targets in zip(images.split(BATCH), mean.split(BATCH), labels.split(BATCH), strict=True)
    ]
    torch.save(torch.cat(parts), folder / "maps.pt")


def train_student(folder: Path, settings: Settings, *, epochs: int, seed: int) -> Iterator[tuple[int, float]]:
    """Train with these settings; yield each epoch, from 1, and the accuracy on validation after it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    (images, labels), held_out = read_digits()
    teacher = make_network(images, **TEACHER)
    teacher.load_state_dict(torch.load(folder / "teacher.pt", weights_only=True))
    teacher.eval()
    maps = torch.load(folder / "maps.pt", weights_only=True)
    views = Views(images, labels, maps, settings["overlay_probability"], settings["overlay_strength"])
    loader = DataLoader(views, BATCH, shuffle=True)
    validation = DataLoader(TensorDataset(*held_out), 512)
    student = make_network(images, **STUDENT)
    optimizer, schedule = make_optimizer(student, settings["learning_rate"], epochs * len(loader))
    temperature, alpha = settings["temperature"], settings["alpha"]
    training = f"{os.getpid()}-{time.monotonic_ns()}"
    for epoch in range(1, epochs + 1):
        student.train()
        for clean, seen, targets in loader:
            with torch.no_grad():
                taught = teacher(clean)
            logits = student(seen)
            soft = F.kl_div(
                F.log_softmax(logits / temperature, 1), F.softmax(taught / temperature, 1), reduction="batchmean"
            )
            loss = alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        reached = accuracy(student, validation)
        with (folder / "epochs.jsonl").open("a", encoding="utf-8") as log:  # which the benchmark reads
            log.write(json.dumps({"pid": os.getpid(), "training": training, "epoch": epoch}) + "\n")
        yield epoch, reached


def save_winner(folder: Path, settings: Settings, reached: float, *, ended: int, lost: int) -> None:
    """Write what came out: the settings of the winner, and how many trials ended with a result, or without."""
    found = {"settings": settings, "accuracy": reached, "ended": ended, "lost": lost}
    (folder / "winner.part").write_text(json.dumps(found), encoding="utf-8")
    (folder / "winner.part").rename(folder / "winner.json")
