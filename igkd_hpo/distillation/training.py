"""The training loop: one student, or one teacher, on images that are on the device or read ahead of each step."""

import logging
import math
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from igkd_hpo.distillation.alignment import ShuffledLogits, StandIns, align_maps
from igkd_hpo.distillation.attention_table import AttentionTable
from igkd_hpo.distillation.averaging import RunningAverage
from igkd_hpo.distillation.batches import (
    LOGITS,
    MAPS,
    Batch,
    EpochPlan,
    Samples,
    TrainingData,
    draw_plan,
    epoch_seed,
    fixed_seed,
    make_batch,
    raw_maps,
    read_samples,
    shown_pixels,
)
from igkd_hpo.distillation.blocks import Features, first_blocks
from igkd_hpo.distillation.ensemble import average_members
from igkd_hpo.distillation.evaluation import forward_chunks, forward_in_batches, score, tally
from igkd_hpo.distillation.features import FeatureTerms, Taught
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.losses import balanced_weights, distillation_loss
from igkd_hpo.distillation.metrics import EpochMetrics, Metric
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.needs import check_needs
from igkd_hpo.distillation.objectives import make_objective
from igkd_hpo.distillation.optimization import (
    begin_momenta,
    decay_groups,
    forget_within,
    make_optimizer,
    make_schedule,
    slow_down,
)
from igkd_hpo.distillation.pointwise import multiply_pointwise
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.sparsity import Pruning
from igkd_hpo.distillation.step_graph import NotCaptured, StepGraph
from igkd_hpo.distillation.streaming import is_streamed, place, read_ahead
from igkd_hpo.distillation.tally import Tally
from igkd_hpo.distillation.teaching import OutOfFoldLogits, Teaching
from igkd_hpo.distillation.terms import Step, added_terms
from igkd_hpo.distillation.views import make_views

_log = logging.getLogger(__name__)
_VALIDATION_BATCH = 512  # images of 32x32; large enough to fill a device, small enough for any
# Fewer of larger ones, but never fewer than a training step has, which keeps its activations and so takes more: at
# 96x96 the student of 543,498 parameters took 19 MiB an image here, and 200 in a step; 512 would be 9.6 GiB.
_VALIDATION_PIXELS = _VALIDATION_BATCH * 32 * 32


class NonFiniteLoss(ArithmeticError):
    """The error of an epoch whose training or validation loss is infinite or no number; `epoch` counts from 1."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss of epoch {epoch} is not finite; a lower learning rate may help")
        self.epoch = epoch


class Training:
    """One training, epoch by epoch; it can be left after any epoch and gone on with from its state, as if it had not.

    On a CPU that is so bit for bit; on a GPU some kernels add in another order each time.

    A step is batched tensor operations alone, and the host reads a number back once an epoch, so that a CUDA device
    never waits for it. Losses are computed in float32 whatever the precision; validation runs in float32.

    `network` is the result, which validation measures too: the network that is trained or, with `ema_decay`, the
    running average of its weights and buffers.
    """

    def __init__(
        self,
        network: Network,
        data: TrainingData,
        recipe: Recipe,
        *,
        device: torch.device,
        teaching: Teaching | None,
        teacher: Network | None = None,
        attention: AttentionTable | None = None,
        pretrained: Collection[str] = (),
        metric: Metric = "accuracy",
    ) -> None:
        """Move the network and the data to the device. Raises ValueError where these do not fit each other.

        Args:
            network: initialised by the caller; trained in place; with `ema_decay`, a copy of it holds the average.
            data: needs maps where `recipe.uses(Role.MAPS)`; they are not touched elsewhere.
            teaching: may be None where not `recipe.uses(Role.LOGITS)`, or where `teacher` is there to give logits too.
            teacher: needed where `recipe.uses(Role.FEATURES)`: frozen, in evaluation mode.
            attention: of that teacher, which then is not run where this is enough.
            pretrained: names of the body's parameters that learn at `body_rate` of the learning rate.
            metric: of the validation; no step depends on it.
        """
        check_needs(data, recipe, teaching, teacher)
        self.recipe = recipe
        self.views = make_views(recipe, data.digests).to(device)
        self.device = device
        data = data if recipe.uses(Role.MAPS) else replace(data, maps=None)
        self._streamed = is_streamed(data, device)
        self.data = self._align(place(data, device))
        self.metric = metric
        self._stand_ins: StandIns | None = None
        if recipe.alignment == "reference_shuffled":
            self._stand_ins = StandIns(self.data, **self._alignment_options(LOGITS))
        self.teaching = self._asked = teaching if recipe.uses(Role.LOGITS) else None
        if self.teaching is not None and self._stand_ins is not None:
            self.teaching = ShuffledLogits(self.teaching, self._stand_ins)
        self.completed_epochs = 0
        self.steps_done = 0  # of this object, validation batches included: another thread reads it to see life
        self._class_weights = balanced_weights(self.data.labels) if recipe.class_weights == "balanced" else None
        network.memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self._trained = network.to(device).to(memory_format=network.memory_format)
        multiply_pointwise(self._trained, network.memory_format)
        self._objective = make_objective(recipe.objective, recipe.settings, torch.bincount(self.data.labels))
        self._terms = added_terms(recipe)
        self._learned = nn.ModuleList([self._trained])
        self.features: FeatureTerms | None = None
        if recipe.uses(Role.FEATURES) and teacher is not None:
            size, teacher = (data.images.shape[2], data.images.shape[3]), teacher.to(device)
            self.features = FeatureTerms(self._trained, teacher, recipe, image_size=size, table=attention)
            self._learned.extend([self.features.adapter, self.features.learned])
        groups = decay_groups(self._learned, recipe.decay)
        if (share := recipe.number("body_rate")) != 1 and pretrained:
            slower = [part for name, part in self._trained.body.named_parameters() if name in pretrained]
            groups = slow_down(groups, slower, rate=share * recipe.learning_rate)
        self.optimizer = make_optimizer(groups, recipe.optimizer, recipe.learning_rate, recipe.weight_decay, device)
        steps = math.ceil(len(data.images) / recipe.batch_size)
        forget_within(steps, self._trained, left=0.1 if recipe.value("init") == "pretrained" else 0.01)
        self._averaged = RunningAverage(self._trained, recipe.ema_decay) if recipe.ema_decay > 0 else None
        self.network = self._trained if self._averaged is None else cast(Network, self._averaged.network)
        self.schedule = make_schedule(self.optimizer, recipe.schedule, recipe.epochs * steps)
        self._pruning = Pruning(self._trained, recipe.sparsity, recipe.epochs * steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self._labels_alone = False
        self._frozen: nn.Module = nn.Identity()
        if recipe.value("init") == "teacher_prefix":
            self._frozen = first_blocks(self._trained, int(recipe.number("frozen_blocks")))
        self._graph: StepGraph | None = None
        self._capture()

    @property
    def compile(self) -> str:
        """Return how its steps run: "none", or "cuda_graph" where one was wanted and could be had."""
        return "none" if self._graph is None else "cuda_graph"

    def _capture(self) -> None:
        """Record the step, where the recipe wants that. Raises NotCaptured where it must be had and cannot."""
        if self.recipe.compile == "none":
            return
        wanted = self.recipe.compile == "cuda_graph"
        if self._streamed:
            if wanted:
                raise NotCaptured(
                    "images beyond a quarter of the device's memory are read ahead of each step, to another place each "
                    "time; use compile auto or none"
                )
            return
        if isinstance(self._asked, OutOfFoldLogits):  # to try would fail, which leaves torch 2.11 with less memory
            if wanted:
                raise NotCaptured("a step that asks each fold's teacher waits for the device; use compile auto or none")
            return
        if self.recipe.rand_augment > 0:  # a recorded step would make its first changes for ever
            if wanted:
                raise NotCaptured("rand_augment draws on the host in each step; use compile auto or none")
            return
        plan = draw_plan(self.recipe, self.views, len(self.data.images), 1).to(self.device)
        try:
            with torch.random.fork_rng([self.device]):
                self._let_learn()
                self._graph = StepGraph(self._update, plan, self._learned, self.optimizer, only_if_faster=not wanted)
        except NotCaptured as reason:
            if wanted:
                raise
            _log.info("steps run one kernel at a time: %s", reason)

    def _release_graph(self) -> None:
        if self._graph is not None:
            self._graph.release()
            self._graph = None

    def _let_learn(self) -> None:
        """Put the network into training mode, but for the blocks that are the teacher's until labels are alone."""
        self._trained.train()
        self._frozen.train(self._labels_alone).requires_grad_(self._labels_alone)
        if self._labels_alone:
            begin_momenta(self.optimizer)

    def _alignment_options(self, purpose: int) -> dict[str, Any]:
        """Return the keywords with which alignment draws, once for a training, from its seed and among its views."""
        generator = torch.Generator().manual_seed(fixed_seed(self.recipe.seed, purpose))
        return {"generator": generator, "views": self.views}

    def _align(self, data: TrainingData) -> TrainingData:
        """Give each image the map that it has in the recipe's alignment."""
        if data.maps is None:
            return data
        options = self._alignment_options(MAPS)
        options["views"] = options["views"].to(data.maps.device)
        maps, follow = align_maps(data.maps, self.recipe.alignment, **options)
        return replace(data, maps=maps, maps_follow_views=follow)

    def epochs(self) -> Iterator[EpochMetrics]:
        """Train from `completed_epochs` to the recipe's last epoch, yielding after each one.

        Raises NonFiniteLoss where an epoch's training or validation loss is not finite; it does not count as completed.
        """
        while self.completed_epochs < self.recipe.epochs:
            metrics = self._train_epoch(self.completed_epochs + 1)
            self.completed_epochs += 1
            yield metrics

    def _train_epoch(self, epoch: int) -> EpochMetrics:
        start = time.perf_counter()
        if self._labels_alone != self.recipe.has_labels_alone(epoch):
            self._release_graph()  # it asks the teacher in each step
            self._labels_alone = not self._labels_alone
            self._capture()
        drawn = draw_plan(self.recipe, self.views, len(self.data.images), epoch)
        plan = drawn.to(self.device)
        steps, batch = plan.rows.shape
        total_loss = torch.zeros((), device=self.device)
        learning_rate = math.nan
        self._let_learn()
        # Dropout in anyone's network draws from torch's global generators, which therefore belong to the epoch too.
        forked = torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])
        on_stream = self._graph.stream() if self._graph is not None else nullcontext()
        with forked, on_stream, self._samples(drawn) as samples:
            torch.manual_seed(epoch_seed(self.recipe.seed, epoch))
            for step, read in zip(range(steps), samples, strict=False):  # there is no end to those that are not read
                learning_rate = float(self.schedule.get_last_lr()[0])
                self._pruning.before((epoch - 1) * steps + step)
                total_loss += self._train_step(plan, step, read)
                self._count_step()
        validation_loss, validation_accuracy = self._validate()
        results = torch.stack([total_loss / steps, validation_accuracy, validation_loss]).tolist()  # the one read
        if not all(map(math.isfinite, results)):
            raise NonFiniteLoss(epoch)
        seconds = time.perf_counter() - start
        return EpochMetrics(
            epoch=epoch,
            train_loss=results[0],
            validation_accuracy=results[1],
            validation_loss=results[2],
            learning_rate=learning_rate,
            images_per_second=steps * batch / seconds,
            seconds=seconds,
        )

    def _samples(self, drawn: EpochPlan) -> AbstractContextManager[Iterator[Samples | None]]:
        """Return the samples of each step of a plan on the CPU; None where the steps gather them themselves."""
        if not self._streamed:
            return nullcontext(repeat(None))
        return read_ahead(partial(read_samples, self.data), drawn.read, self.device)

    def _train_step(self, plan: EpochPlan, step: int, samples: Samples | None = None) -> Tensor:
        if self._graph is None:
            loss = self._update(plan, step, samples)
            self.schedule.step()
        else:
            loss = self._graph.replay(plan, step)
            with self._graph.rate_as_number():
                self.schedule.step()
        if self._averaged is not None:
            self._averaged.update()
        return loss

    def _update(self, plan: EpochPlan, step: int, samples: Samples | None = None) -> Tensor:
        """Change the weights by one step; nothing in here depends on the host, so that a graph can hold it."""
        batch = make_batch(self.data, self.views, plan, step, self._trained.memory_format, samples)
        recipe = self.recipe
        taught = self._ask_teacher(batch)
        features, terms = (None, []) if self._labels_alone else (self.features, self._terms)
        seen = batch.overlaid.detach().requires_grad_(bool(terms))
        student_features: Features = {}
        dtype = getattr(torch, recipe.precision)
        # Only the plain kernel of attention has the second derivative that an added term may need.
        attention = sdpa_kernel(SDPBackend.MATH) if terms else nullcontext()
        with attention, torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            if features is None:
                student_logits = self._trained(seen)
            else:
                student_features, student_logits = features.ask_student(seen)
        loss = distillation_loss(
            student_logits,
            taught.logits,
            batch.labels,
            temperature=recipe.temperature,
            alpha=0.0 if self._labels_alone else recipe.alpha,
            objective=self._objective,
            label_smoothing=recipe.label_smoothing,
            mixtures=batch.mixtures,
            class_weights=self._class_weights,
        )
        if features is not None:
            loss = loss + features.loss(student_features, taught, batch.labels)
        if terms:
            seen_step = Step(
                recipe=recipe,
                network=self._trained,
                pixels=seen,
                student_logits=student_logits,
                teacher_logits=taught.logits,
                targets=batch.labels,
                maps=partial(raw_maps, self.data, self.views, batch),
            )
            for weight, term in terms:
                loss = loss + weight * term(seen_step)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _ask_teacher(self, batch: Batch) -> Taught:
        taught = Taught()
        if self._labels_alone or (self.features is None and self.teaching is None):
            return taught
        asked = batch.rows, batch.numbers, shown_pixels(self.data, self.views, batch)
        if self.features is not None:
            wanted = self.recipe.uses(Role.LOGITS) and self.teaching is None
            instead = asked if self._stand_ins is None else self._stand_ins.of(batch.rows)
            taught = self.features.ask(*instead, logits=wanted)
        if self.teaching is not None:
            if (logits := self.teaching.logits(*asked)).dim() == 3:
                logits = average_members(logits, self.recipe.temperature)
            taught = taught._replace(logits=logits)
        return taught

    def _count_step(self) -> None:
        self.steps_done += 1

    def _validate(self) -> tuple[Tensor, Tensor]:
        logits, labels = self._validation_logits(), self.data.validation_labels
        value = score(logits.argmax(dim=1), labels, self.metric, num_classes=logits.shape[1])
        return F.cross_entropy(logits, labels), value

    def _validation_logits(self) -> Tensor:
        images = self.data.validation_images
        fitting = max(self.recipe.batch_size, _VALIDATION_PIXELS // (images.shape[2] * images.shape[3]))
        batch_size = min(_VALIDATION_BATCH, fitting, len(images))
        if not self._streamed:
            return forward_in_batches(self.network, images, batch_size=batch_size, on_batch=self._count_step)
        rows = torch.split(torch.arange(len(images)), batch_size)
        with read_ahead(lambda some: Samples(images[some]), rows, self.device) as samples:
            chunks = (read.images for read in samples)
            return forward_chunks(self.network, chunks, batch_size=batch_size, on_batch=self._count_step)

    def tally(self) -> Tally:
        """Show the validation images once more, and count the answers of `network` as it is, class by class."""
        logits = self._validation_logits()
        return tally(logits.argmax(dim=1), self.data.validation_labels, num_classes=logits.shape[1])

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs, as tensors and plain containers that share memory with the training."""
        with self._graph.rate_as_number() if self._graph is not None else nullcontext():
            parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {"completed_epochs": self.completed_epochs, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a training with the same network, data and recipe."""
        self._release_graph()  # the optimizer's state will lie in other memory
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.completed_epochs = state["completed_epochs"]
        self._capture()

    def _parts(self) -> dict[str, Any]:
        """Return everything that has a state of its own, in the order in which states are loaded."""
        parts: dict[str, Any] = {
            "body": self._trained.body,
            "adapter": nn.Identity() if self.features is None else self.features.adapter,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }
        if self.features is not None and self.features.learned:
            parts["learned"] = self.features.learned
        return parts if self._averaged is None else {**parts, "averaged": self._averaged}
