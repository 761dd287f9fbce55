"""Is the fast path right? The same students from the same seeds, trained on a plain path beside it.

    python benchmarks/plain.py --seeds 5 --check
    python benchmarks/plain.py photographs.yaml --seeds 20  # a study file whose students see what their teacher sees
    python benchmarks/plain.py --seeds 5 --device cuda      # there the fast path is in bfloat16, as a CUDA graph

The plain path is what a careful person would write first: one sample at a time is cropped, mirrored and overlaid; the
teacher is asked in each step; float32, one kernel at a time, the default memory format, no fused optimizer. It shares
with the fast path the initial weights and what chance decides (order, views, overlays), and no other code.

Both round differently, and training amplifies that: after a few epochs two right paths have different weights. So there
are two questions. *Step by step*: before every step of one whole training the plain path takes over the fast one's
weights and momentum, both step, and what they add to the weights is compared; in float64, where a wrong formula or
schedule stands out from rounding at its first step. *Whole trainings*, in the fast path's own precision: whether
rounding costs accuracy.
"""

import argparse
import copy
import json
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates
from scipy.stats import t
from torch import Tensor

from igkd_hpo.assets.study_assets import Assets, open_assets, prepare_assets
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.controls import make_control
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batches import EpochPlan, TrainingData, draw_plan
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import Boxes, ShiftedCrops, make_views
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.terminal.progress import make_progress
from igkd_hpo.trial.build import PreparedTrial, make_student, make_trial

ROUNDING = 1e-6  # of the length of a step in float64; pixels and overlays are float32 in both paths
# Where a box lies is float32 in the fast path alone. With such places in the plain one too, steps differed by 5e-7 in
# the median in place of 1e-5, by 2e-4 at worst in place of 3e-3; views that are a pixel off made them differ by 0.6.
ROUNDING_OF_BOXES = 1e-2


class PlainTraining:
    """One student on the plain path."""

    def __init__(
        self, network: Network, data: TrainingData, recipe: Recipe, *, teacher: Network, device: torch.device
    ) -> None:
        """Take the same as the fast path, but the teacher itself for its logits."""
        self.recipe = recipe
        self.device = device
        self.network = network.to(device)
        self.teacher = teacher.to(device).eval()
        self.optimizer = torch.optim.SGD(
            network.parameters(), recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay,
            foreach=False, fused=False,
        )  # fmt: skip
        self.data = data
        self.views = make_views(recipe, data.digests)
        self.images = data.images.float() / 255
        assert data.maps is not None
        self.maps = data.maps.float()
        self.steps = -(-len(self.images) // recipe.batch_size)
        # What decision 3 says of small data sets belongs to the recipe.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = max(0.1, 1 - 0.01 ** (1 / self.steps))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, total_steps=recipe.epochs * self.steps, cycle_momentum=False
        )

    def plan(self, epoch: int) -> EpochPlan:
        """What chance decides in an epoch."""
        return draw_plan(self.recipe, self.views, len(self.images), epoch)

    def step(self, plan: EpochPlan, step: int) -> float:
        """One step; returns its loss."""
        self.network.train()
        clean, seen = [], []
        for j, row in enumerate(plan.rows[step].tolist()):
            raised = (self.maps[row] / self.maps[row].max().clamp_min(1e-30)) ** plan.exponents[step, j]
            spread = raised.max() - raised.min()
            stretched = (raised - raised.min()) / spread if spread > 0 else torch.zeros_like(raised)
            sample = self._shifted if isinstance(self.views, ShiftedCrops) else self._boxed
            view, its_map = sample(self.images[row], stretched, plan, step, j)
            strength = plan.strengths[step, j]
            clean.append(view)
            seen.append((1 - strength) * view + strength * its_map)
        with torch.no_grad():
            taught = self.teacher(torch.stack(clean).to(self.device))
        logits = self.network(torch.stack(seen).to(self.device))
        temperature, alpha = self.recipe.temperature, self.recipe.alpha
        soft = F.kl_div(
            F.log_softmax(logits / temperature, 1), F.softmax(taught / temperature, 1), reduction="batchmean"
        )
        hard = F.cross_entropy(logits, self.data.labels[plan.rows[step]].to(self.device))
        loss = alpha * temperature**2 * soft + (1 - alpha) * hard
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def _shifted(self, image: Tensor, map_: Tensor, plan: EpochPlan, step: int, j: int) -> tuple[Tensor, Tensor]:
        """One image (3, H, W) in [0, 1] and its map (H, W) in a view, cut out of their padded selves."""
        height, width = map_.shape
        side = 2 * self.recipe.crop_padding + 1
        flip, place = divmod(int(plan.numbers[step, j]), side * side)
        dy, dx = divmod(place, side)
        views = []
        for part in (image, map_):
            view = F.pad(part, (self.recipe.crop_padding,) * 4)[..., dy : dy + height, dx : dx + width]
            views.append(view.flip(-1) if flip else view)
        return views[0], views[1]

    def _boxed(self, image: Tensor, map_: Tensor, plan: EpochPlan, step: int, j: int) -> tuple[Tensor, Tensor]:
        """The same in a box of the image, brought to its size by SciPy; beyond the edge lies the edge."""
        assert isinstance(self.views, Boxes)
        row, number = int(plan.rows[step, j]), int(plan.numbers[step, j])
        top, left, tall, wide = self.views.corners[row, number].tolist()
        height, width = map_.shape
        down = (top + tall * (np.arange(height) + 0.5) / height) * height - 0.5
        right = (left + wide * (np.arange(width) + 0.5) / width) * width - 0.5
        if self.views.flips[row, number]:
            right = right[::-1]
        places = np.meshgrid(down, right, indexing="ij")
        layers = [*image.numpy(), map_.numpy()]
        cut = [torch.from_numpy(map_coordinates(layer, places, order=1, mode="nearest")) for layer in layers]
        return torch.stack(cut[:3]).contiguous(), cut[3]

    @torch.no_grad()
    def accuracy(self) -> float:
        """On the validation images, a fraction."""
        self.network.eval()
        answers = self.network(self.data.validation_images.float().div(255).to(self.device)).argmax(1).cpu()
        return float((answers == self.data.validation_labels).double().mean())

    def train(self) -> float:
        """All epochs; returns the accuracy."""
        for epoch in range(1, self.recipe.epochs + 1):
            plan = self.plan(epoch)
            for step in range(self.steps):
                self.step(plan, step)
        return self.accuracy()


class AskedTeacher:
    """The teacher itself in place of the table, whose logits are rounded to float16."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @torch.no_grad()
    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Ask it about the clean views."""
        answers: Tensor = self.network(pixels)
        return answers


def in_double(network: Network) -> Network:
    """The network with weights in float64, whatever it is shown."""
    network.register_forward_pre_hook(lambda _, shown: (shown[0].double(),))
    return network.double()


def step_by_step(fast: Training, plain: PlainTraining) -> list[float]:
    """How far the two paths' steps from the same state differ, over a whole training; as shares of a step's length."""

    def weights(network: Network) -> Tensor:
        return torch.cat([weight.detach().flatten() for weight in network.parameters()])

    differences = []
    for epoch in range(1, fast.recipe.epochs + 1):
        plan = plain.plan(epoch)
        on_device = plan.to(fast.device)
        for step in range(plain.steps):
            plain.network.load_state_dict(fast.network.state_dict())
            for mine, its in zip(plain.network.parameters(), fast.network.parameters(), strict=True):
                if its in fast.optimizer.state:
                    momentum = fast.optimizer.state[its]["momentum_buffer"]
                    plain.optimizer.state[mine]["momentum_buffer"] = momentum.clone()
            before = weights(fast.network)
            fast.network.train()
            fast._train_step(on_device, step)
            plain.step(plan, step)
            expected = weights(plain.network) - before
            differences.append(float((weights(fast.network) - before - expected).norm() / expected.norm()))
    return differences


def same_steps(differences: list[float], rounding: float = ROUNDING) -> bool:
    """Whether only rounding makes the steps differ: an activation in a step of ten may lie across a kink of ReLU6."""
    return sorted(differences)[int(0.9 * len(differences))] <= rounding


class Bench:
    """The control `kd_ig` of a study, on both paths."""

    def __init__(self, study: Study, assets: Assets, device: torch.device) -> None:
        self.study, self.assets, self.device = study, assets, device
        self.values = make_control("kd_ig", study.hyperparameters).hyperparameters
        self.data = assets.training_data()

    @property
    def teacher(self) -> Network:
        """A teacher of one's own."""
        return copy.deepcopy(self.assets.teachers.members[0].network).eval()

    def fast(self, seed: int) -> PreparedTrial:
        """A trial as a worker trains it."""
        return make_trial(self.study, self.values, self.assets, seed=seed, device=self.device)

    def plain(self, recipe: Recipe) -> PlainTraining:
        """The same on the plain path."""
        student = make_student(self.study, self.values, self.assets, seed=recipe.seed).network
        return PlainTraining(student, self.data, recipe, teacher=self.teacher, device=self.device)

    def step_by_step(self) -> list[float]:
        """See `step_by_step`; in float64, steps not captured in a graph, the teacher asked in both."""
        recipe = replace(self.fast(0).training.recipe, precision="float32", compile="none")
        plain = self.plain(recipe)
        asked = AskedTeacher(in_double(self.teacher.to(self.device)))
        student = copy.deepcopy(plain.network)
        in_double(plain.network)
        in_double(plain.teacher)
        fast = Training(in_double(student), self.data, recipe, device=self.device, teaching=asked)
        return step_by_step(fast, plain)

    def accuracies(self, seed: int) -> dict[str, float]:
        """Of whole trainings, fractions."""
        trial = self.fast(seed)
        *_, last = trial.training.epochs()
        return {"seed": seed, "fast": last.validation_accuracy, "plain": self.plain(trial.training.recipe).train()}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="digits", help="a file, or the name of a built-in study")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of the study's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the paths differ")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    study = read_study(builtin_studies().get(options.study) or Path(options.study))
    if options.epochs is not None:
        study = study.model_copy(update={"training": study.training.model_copy(update={"epochs": options.epochs})})
    with TemporaryDirectory() as folder, make_progress() as progress:
        settings = Settings(
            paths=Paths(root=Path(folder)), storage_url="sqlite://", data_root=Path(folder), allow_import=frozenset()
        )
        prepare_assets(study, settings, device=str(device), progress=progress)
        bench = Bench(study, open_assets(study, settings), device)
        execution = bench.fast(0).execution.model_dump(mode="json")
        steps = bench.step_by_step()
        print(
            f"step by step in float64, {len(steps)} steps: they differ by {statistics.median(steps):.1e} of their "
            f"length, at worst by {max(steps):.1e}",
            file=sys.stderr,
        )
        lines = []
        with progress.task("seeds", options.seeds) as advance:
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                lines.append(line := bench.accuracies(seed))
                print(f"seed {seed}: fast {line['fast']:.2%}, plain {line['plain']:.2%}", file=sys.stderr)
                advance(1)
    differences = [line["fast"] - line["plain"] for line in lines]
    half = float(t.ppf(0.975, len(lines) - 1)) * statistics.stdev(differences) / len(lines) ** 0.5
    mean = statistics.fmean(differences)
    spread = statistics.stdev(line["plain"] for line in lines)
    found = {
        "execution": execution,
        "n_validation": len(bench.data.validation_labels),
        "steps": {"n": len(steps), "median": statistics.median(steps), "worst": max(steps)},
        "lines": lines,
        "spread_of_seeds": spread,
        "difference": mean,
        "interval": [mean - half, mean + half],
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(
            f"fast minus plain {mean * 100:+.2f} points (95 %: {100 * (mean - half):+.2f} to "
            f"{100 * (mean + half):+.2f}); the seeds' own standard deviation is {100 * spread:.2f}"
        )
    rounding = ROUNDING if study.augmentation.views is None else ROUNDING_OF_BOXES
    equal = same_steps(steps, rounding) and mean - half <= 0 <= mean + half
    return int(options.check and not equal)


if __name__ == "__main__":
    sys.exit(main())
