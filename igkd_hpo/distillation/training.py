"""The training loop: one student, or one teacher, on tensors that are already on the device."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igkd_hpo.distillation.augmentation import Views, apply_views, index_of, n_views, views_from_index
from igkd_hpo.distillation.evaluation import forward_in_batches
from igkd_hpo.distillation.losses import distillation_loss
from igkd_hpo.distillation.models import Network, to_pixels
from igkd_hpo.distillation.optimization import make_optimizer, make_schedule
from igkd_hpo.distillation.overlay import normalize_maps, overlay
from igkd_hpo.errors import UsageError

TEACHER_BATCH = 64  # the one batch size of every teacher logit, cached or online, so that both give the same numbers
_VALIDATION_BATCH = 512  # images; large enough to fill a device, small enough for any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training gives, beside the data, the networks and the machine."""

    epochs: int
    batch_size: int  # 2 or more
    optimizer: str  # sgd, adam or adamw
    schedule: str  # constant, cosine or one_cycle
    learning_rate: float  # the highest of the schedule
    weight_decay: float
    temperature: float
    alpha: float  # share of the distillation term, 0 to 1
    overlay_probability: float  # share of the samples that get an overlay, 0 to 1
    overlay_strength: float  # share of the map in an overlay, 0 to 1
    crop_padding: int  # pixels
    horizontal_flip: bool
    seed: int  # 0 or more; order, views and overlays follow from it, the initial weights are the caller's
    precision: str  # float32, bfloat16 or float16
    channels_last: bool


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The images to train on and those to validate on; row i of every training tensor belongs to training image i."""

    images: Tensor  # uint8 (N, 3, H, W)
    labels: Tensor  # int64 (N,)
    maps: Tensor | None  # float (N, H, W), 0 or above; None where nothing is overlaid
    validation_images: Tensor  # uint8 (M, 3, H, W)
    validation_labels: Tensor  # int64 (M,)


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one finished epoch gave."""

    epoch: int  # how many are finished, this one included
    train_loss: float  # mean over the epoch's steps
    validation_accuracy: float  # a fraction
    validation_loss: float  # cross-entropy
    learning_rate: float  # of the epoch's last step
    images_per_second: float  # trained on, over all of the epoch's time
    seconds: float  # validation included


class NonFiniteLoss(ArithmeticError):
    """An epoch's training or validation loss is infinite or not a number; `epoch` counts from 1."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss of epoch {epoch} is not finite; a lower learning rate may help")
        self.epoch = epoch


class Teaching(Protocol):
    """Where the teacher's logits come from."""

    def logits(self, rows: Tensor, views: Views, pixels: Tensor) -> Tensor:
        """Return the float32 logits (B, K) for the clean views `pixels` (B, 3, H, W) of the images `rows` (B,)."""
        ...


class CachedLogits:
    """Teacher logits that were made once for every view of every image: float16 (N, n_views, K), on the device."""

    def __init__(self, table: Tensor, padding: int, horizontal_flip: bool) -> None:
        """Take a table whose rows are images and whose columns are views, in the order of `index_of`.

        Raises:
            ValueError: the table has another number of views.
        """
        if table.shape[1] != n_views(padding, horizontal_flip):
            raise ValueError(
                f"the table of logits holds {table.shape[1]} views; "
                f"padding {padding} and flip {horizontal_flip} make {n_views(padding, horizontal_flip)}"
            )
        self.table = table
        self.padding = padding
        self.horizontal_flip = horizontal_flip

    def logits(self, rows: Tensor, views: Views, pixels: Tensor) -> Tensor:
        """Look the logits up; the pixels are not needed."""
        return self.table[rows, index_of(views, self.padding, self.horizontal_flip)].float()


class OnlineLogits:
    """Teacher logits made when they are needed, and rounded to float16 as the cached ones are."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def logits(self, rows: Tensor, views: Views, pixels: Tensor) -> Tensor:
        """Ask the teacher about the pixels."""
        return forward_in_batches(self.network, pixels, batch_size=TEACHER_BATCH).half().float()


class EpochPlan(NamedTuple):
    """All the randomness of one epoch, drawn at its start; tensors are (steps, B)."""

    rows: Tensor  # int64
    views: Views
    strengths: Tensor  # float32; 0 for the samples that get no overlay
    exponents: Tensor  # float32 in [1, 2]
    padding: int

    def to(self, device: torch.device) -> "EpochPlan":
        """Return the plan with its tensors on `device`."""
        return EpochPlan(
            rows=self.rows.to(device),
            views=Views(*(part.to(device) for part in self.views)),
            strengths=self.strengths.to(device),
            exponents=self.exponents.to(device),
            padding=self.padding,
        )


class Batch(NamedTuple):
    """One step's samples: element j of every tensor belongs to the image `rows[j]` in the view `views[j]`."""

    rows: Tensor  # int64 (B,)
    views: Views
    labels: Tensor  # int64 (B,)
    pixels: Tensor  # float32 (B, 3, H, W): the clean view, which the teacher sees
    maps: Tensor | None  # float32 (B, H, W) in [0, 1]: the map in the same view
    overlaid: Tensor  # float32 (B, 3, H, W): what the student sees


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch's randomness: any epoch can be begun without those before it."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


def draw_plan(recipe: Recipe, n_images: int, epoch: int) -> EpochPlan:
    """Draw the order, views and overlays of one epoch, on the CPU, so that every kind of device gets the same ones.

    Every epoch has ceil(N / B) steps of min(B, N) samples: a permutation, filled up from its own start. Order and views
    are drawn first, so that trainings that differ only in their overlays see the same samples in the same views.
    """
    generator = torch.Generator().manual_seed(epoch_seed(recipe.seed, epoch))
    batch = min(recipe.batch_size, n_images)
    steps = math.ceil(n_images / batch)
    order = torch.randperm(n_images, generator=generator)
    rows = torch.cat([order, order])[: steps * batch].reshape(steps, batch)
    count = n_views(recipe.crop_padding, recipe.horizontal_flip)
    views = torch.randint(count, (steps, batch), generator=generator)
    chosen = torch.rand(steps, batch, generator=generator) < recipe.overlay_probability
    return EpochPlan(
        rows=rows,
        views=views_from_index(views, recipe.crop_padding, recipe.horizontal_flip),
        strengths=chosen * recipe.overlay_strength,
        exponents=2 ** torch.rand(steps, batch, generator=generator),
        padding=recipe.crop_padding,
    )


def make_batch(data: TrainingData, plan: EpochPlan, step: int, memory_format: torch.memory_format) -> Batch:
    """Gather one step's samples; images and maps go through the same views, and only the student's get overlays."""
    rows = plan.rows[step]
    views = Views(*(part[step] for part in plan.views))
    pixels = to_pixels(apply_views(data.images[rows], views, plan.padding), memory_format)
    maps = None
    overlaid = pixels
    if data.maps is not None:
        whole = normalize_maps(data.maps[rows], plan.exponents[step])
        maps = apply_views(whole[:, None], views, plan.padding)[:, 0]
        overlaid = overlay(pixels, maps, plan.strengths[step])
    return Batch(rows, views, data.labels[rows], pixels, maps, overlaid)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return "float32", "bfloat16" or "float16" for a name that may also be "auto".

    "auto" is bfloat16 on a CUDA device that has it and float32 elsewhere.

    Raises:
        UsageError: half precision on a device that cannot train in it.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bfloat16" if has_bfloat16 else "float32"
    if (name == "bfloat16" and not has_bfloat16) or (name == "float16" and device.type != "cuda"):
        raise UsageError(f"precision {name} is not to be had on the device {device}; use auto or float32")
    return name


def _forget_within(steps: int, network: Network) -> None:
    """Raise batch normalisation's momentum until an epoch of few steps leaves 1 % of the statistics it began with.

    Else validation lags behind training by epochs, and a pruner judges noise: on 1,150 digits, 9 steps an epoch, a
    student whose training loss had come down to 1.05 still validated at 0.13 with torch's 0.1, at 0.4 or more with 0.5.
    From 44 steps on, 0.1 is enough already.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.momentum is not None:
            module.momentum = max(module.momentum, 1 - 0.01 ** (1 / steps))


class Training:
    """One training, epoch by epoch; it can be left after any epoch and gone on with, bit for bit, from its state.

    A step is batched tensor operations alone, and the host reads a number back once an epoch, so that a CUDA device
    never waits for it. Losses are computed in float32 whatever the precision; validation runs in float32.
    """

    def __init__(
        self,
        network: Network,
        data: TrainingData,
        recipe: Recipe,
        *,
        device: torch.device,
        teaching: Teaching | None,
    ) -> None:
        """Move the network and the data to the device, where they are not there yet.

        Args:
            network: initialised by the caller; trained in place.
            data: needs maps where `recipe.overlay_probability` is above 0; they are not touched where it is 0.
            teaching: may be None where `recipe.alpha` is 0.

        Raises:
            ValueError: data that do not fit each other or the recipe.
        """
        self._check(data, recipe, teaching)
        self.network = network.to(device)
        self.recipe = recipe
        self.device = device
        self.teaching = teaching if recipe.alpha > 0 else None
        self.completed_epochs = 0
        self.steps_done = 0  # of this object, validation batches included: another thread reads it to see life
        self.data = TrainingData(
            images=data.images.to(device),
            labels=data.labels.to(device),
            maps=data.maps.to(device) if data.maps is not None and recipe.overlay_probability > 0 else None,
            validation_images=data.validation_images.to(device),
            validation_labels=data.validation_labels.to(device),
        )
        self._memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network.to(memory_format=self._memory_format)
        self.optimizer = make_optimizer(
            self.network.parameters(), recipe.optimizer, recipe.learning_rate, recipe.weight_decay, device
        )
        steps = math.ceil(len(data.images) / recipe.batch_size)
        _forget_within(steps, self.network)
        self.schedule = make_schedule(self.optimizer, recipe.schedule, recipe.learning_rate, recipe.epochs * steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    @staticmethod
    def _check(data: TrainingData, recipe: Recipe, teaching: Teaching | None) -> None:
        n_images = len(data.images)
        if recipe.batch_size < 2 or n_images < 2:
            raise ValueError(
                f"batch_size is {recipe.batch_size} and there are {n_images} training images; "
                "batch normalisation needs 2 or more of both"
            )
        if len(data.validation_images) == 0:
            raise ValueError("there are no validation images; set some aside, validation is part of every epoch")
        if recipe.epochs < 1:
            raise ValueError(f"epochs is {recipe.epochs}; it must be 1 or more")
        if recipe.alpha > 0 and teaching is None:
            raise ValueError(f"alpha is {recipe.alpha}, which needs a teacher's logits; give them, or alpha 0")
        if recipe.overlay_probability > 0 and data.maps is None:
            raise ValueError(
                f"overlay_probability is {recipe.overlay_probability}, which needs attribution maps; "
                "give them, or probability 0"
            )
        for name, rows in (("labels", data.labels), ("maps", data.maps)):
            if rows is not None and len(rows) != n_images:
                raise ValueError(f"there are {len(rows)} {name} for {n_images} training images; row i must be image i")

    def epochs(self) -> Iterator[EpochMetrics]:
        """Train from `completed_epochs` to the recipe's last epoch, yielding after each one.

        Raises:
            NonFiniteLoss: the epoch's training or validation loss is not finite; the epoch does not count as completed.
        """
        while self.completed_epochs < self.recipe.epochs:
            metrics = self._train_epoch(self.completed_epochs + 1)
            self.completed_epochs += 1
            yield metrics

    def _train_epoch(self, epoch: int) -> EpochMetrics:
        start = time.perf_counter()
        plan = draw_plan(self.recipe, len(self.data.images), epoch).to(self.device)
        steps, batch = plan.rows.shape
        total_loss = torch.zeros((), device=self.device)
        learning_rate = math.nan
        self.network.train()
        # Dropout in anyone's network draws from torch's global generators, which therefore belong to the epoch too.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(epoch_seed(self.recipe.seed, epoch))
            for step in range(steps):
                learning_rate = self.optimizer.param_groups[0]["lr"]
                total_loss += self._train_step(plan, step)
                self._count_step()
        validation_loss, validation_accuracy = self._validate()
        results = torch.stack([total_loss / steps, validation_loss, validation_accuracy]).tolist()  # the one read
        if not all(map(math.isfinite, results)):
            raise NonFiniteLoss(epoch)
        seconds = time.perf_counter() - start
        return EpochMetrics(
            epoch=epoch,
            train_loss=results[0],
            validation_accuracy=results[2],
            validation_loss=results[1],
            learning_rate=learning_rate,
            images_per_second=steps * batch / seconds,
            seconds=seconds,
        )

    def _train_step(self, plan: EpochPlan, step: int) -> Tensor:
        batch = make_batch(self.data, plan, step, self._memory_format)
        teacher_logits = None
        if self.teaching is not None:
            teacher_logits = self.teaching.logits(batch.rows, batch.views, batch.pixels)
        dtype = getattr(torch, self.recipe.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            student_logits = self.network(batch.overlaid)
        loss = distillation_loss(
            student_logits,
            teacher_logits,
            batch.labels,
            temperature=self.recipe.temperature,
            alpha=self.recipe.alpha,
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return loss.detach()

    def _count_step(self) -> None:
        self.steps_done += 1

    def _validate(self) -> tuple[Tensor, Tensor]:
        images = self.data.validation_images
        labels = self.data.validation_labels
        batch_size = min(_VALIDATION_BATCH, len(images))
        logits = forward_in_batches(self.network, images, batch_size=batch_size, on_batch=self._count_step)
        return F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).float().mean()

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs, as tensors and plain containers that share memory with the training."""
        return {
            "completed_epochs": self.completed_epochs,
            "body": self.network.body.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a training with the same network, data and recipe."""
        self.network.body.load_state_dict(state["body"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.completed_epochs = state["completed_epochs"]
