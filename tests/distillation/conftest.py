import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.features import FeatureTerms
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe, make_recipe, plain_values

torch.set_num_threads(1)

N_CLASSES = 3


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Return a training's state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def descend(student: Network, terms: FeatureTerms, pixels: Tensor, *, rate: float, logits: bool) -> list[float]:
    """Return the losses of twelve steps of Adam on terms alone, with or without the teacher's logits."""
    taught = terms.ask_teacher(pixels, logits=logits)
    learned = [*student.parameters(), *terms.adapter.parameters(), *terms.learned.parameters()]
    optimizer = torch.optim.Adam(learned, lr=rate)
    losses = []
    for _ in range(12):
        loss = terms.loss(terms.ask_student(pixels)[0], taught, torch.zeros(len(pixels), dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def tiny_network() -> Callable[[], Network]:
    """Make a network with everything that could break a resumed training: batch statistics, dropout, convolutions."""

    def make() -> Network:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            body = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(0.2),
                nn.Linear(8, N_CLASSES),
            )
        return Network(body, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])

    return make


@pytest.fixture
def data() -> TrainingData:
    """Seventy 8x8 images of three classes that a tiny network can learn: the class is the brightest colour."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(70) % N_CLASSES
    images = torch.randint(0, 128, (70, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(70), labels] += 60
    maps = torch.rand(70, 8, 8, generator=generator).half()
    return TrainingData(
        images=images, labels=labels, maps=maps, validation_images=images[:21], validation_labels=labels[:21]
    )


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """Make a recipe that uses everything, with the given values changed."""
    default = plain_values() | {
        "epochs": 4,
        "batch_size": 32,
        "optimizer": "sgd",
        "schedule": "one_cycle",
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "temperature": 4.0,
        "alpha": 0.5,
        "overlay_probability": 0.5,
        "overlay_strength": 0.5,
        "crop_padding": 1,
        "horizontal_flip": True,
        "views": None,
        "scale": None,
        "mixed": None,
        "seed": 3,
        "precision": "float32",
        "channels_last": True,
        "compile": "none",
    }
    return lambda **changes: make_recipe(default | changes)
