"""The pipeline of arXiv 2503.13008 as its published code works, written anew: the yardstick of `speed.py`.

One process; every sample goes through PIL transforms and its own overlay in a `DataLoader`; batches of 64; float32, one
kernel at a time, the default memory format; constant Adam; the loss and the count of right answers are read from the
device in every step; the test set is evaluated after every epoch. Attribution is captum's, 8 images and 50 steps at a
time, with gradients of the parameters that nobody asked for.

    python benchmarks/reference.py --images 2000 --epochs 2

It is a yardstick of speed alone: what it is wrong about (whose logits, which view, which split) is in `ablation.py`.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2

BATCH = 64
ALPHA, TEMPERATURE = 0.01, 2.5
OVERLAY_PROBABILITY = 0.1
IG_BATCH, IG_STEPS = 8, 50
LAYERS_REMOVED = 5

Pixels = npt.NDArray[np.uint8]


class Images(NamedTuple):
    """What a training needs, on the host.

    Args:
        pixels: uint8 (N, 32, 32, 3).
        labels: int64 (N,).
        maps: float32 (N, 32, 32), 0 or above.
        logits: float32 (N, 10).
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    maps: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


def make_images(count: int, seed: int = 0) -> Images:
    """Noise in the shape of CIFAR-10: how fast it is trained on does not depend on what it shows."""
    draw = np.random.default_rng(seed)
    return Images(
        pixels=draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        labels=draw.integers(0, 10, count),
        maps=draw.random((count, 32, 32), dtype=np.float32),
        logits=draw.normal(size=(count, 10)).astype(np.float32),
    )


class _Plain(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Images) -> None:
        self.images = images
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images.pixels[index])), int(self.images.labels[index])


class _Overlaid(Dataset[tuple[Tensor, int, Tensor]]):
    """A sample is cropped and mirrored by itself, and its map, which is not, is stretched whether it is used or not."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.maps = torch.from_numpy(images.maps)[:, None]
        self.logits = torch.from_numpy(images.logits)
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        pixels = self.transform(Image.fromarray(self.images.pixels[index]))
        raised = self.maps[index] ** np.exp(np.random.uniform(0.0, np.log(2.0)))
        stretched = (raised - raised.min()) / (raised.max() - raised.min())
        colours = stretched.repeat(3, 1, 1)
        if np.random.rand() < OVERLAY_PROBABILITY:
            pixels = 0.5 * pixels + 0.5 * colours
        return pixels, int(self.images.labels[index]), self.logits[index]


class Reference:
    """A student, its data and its optimizer; call `epoch`."""

    def __init__(self, train: Images, test: Images, *, device: torch.device, loader_processes: int = 0) -> None:
        """Build everything on `device`; `loader_processes` of the DataLoader, 0 for the training's own."""
        self.device = device
        self.student = mobilenet_v2(num_classes=10, layers_removed=LAYERS_REMOVED).to(device)
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=1e-3)
        lasting = {"num_workers": loader_processes, "persistent_workers": loader_processes > 0}
        self.train_loader = DataLoader(_Overlaid(train), BATCH, shuffle=True, **lasting)
        self.test_loader = DataLoader(_Plain(test), BATCH, **lasting)

    def epoch(self) -> tuple[float, float]:
        """One epoch and the test after it: the mean loss, the test accuracy (a fraction)."""
        self.student.train()
        total, correct, seen = 0.0, 0, 0
        for sample in self.train_loader:
            pixels, labels, teacher_logits = (part.to(self.device) for part in sample)
            self.optimizer.zero_grad()
            logits = self.student(pixels)
            soft = nn.KLDivLoss(reduction="batchmean")(
                F.log_softmax(logits / TEMPERATURE, dim=1), F.softmax(teacher_logits / TEMPERATURE, dim=1)
            )
            loss = ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * F.cross_entropy(logits, labels)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
            correct += (logits.argmax(dim=1) == labels).sum().item()
            seen += len(labels)
        return total / len(self.train_loader), self._test()

    def _test(self) -> float:
        self.student.eval()
        correct, seen = 0, 0
        with torch.no_grad():
            for pixels, labels in self.test_loader:
                logits = self.student(pixels.to(self.device))
                correct += (logits.argmax(dim=1).cpu() == labels).sum().item()
                seen += len(labels)
        return correct / seen


def attribute(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """The maps (N, H, W) of normalised pixels (N, 3, H, W), as the published code makes them; baseline 0."""
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    explain = IntegratedGradients(network)
    parts = [
        explain.attribute(some.requires_grad_(True), torch.zeros_like(some), target=targets, n_steps=IG_STEPS)
        for some, targets in zip(torch.split(pixels, IG_BATCH), torch.split(labels, IG_BATCH), strict=True)
    ]
    return torch.cat(parts).detach().abs().sum(dim=1)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--loader-processes", type=int, default=0)
    given = parser.parse_args()
    reference = Reference(
        make_images(given.images), make_images(given.images // 5, seed=1),
        device=torch.device(given.device), loader_processes=given.loader_processes,
    )  # fmt: skip
    for epoch in range(1, given.epochs + 1):
        begun = time.perf_counter()
        loss, accuracy = reference.epoch()
        seconds = time.perf_counter() - begun
        print(f"epoch {epoch}: loss {loss:.3f}, test accuracy {accuracy:.1%}, {given.images / seconds:,.0f} images/s")


if __name__ == "__main__":
    main()
