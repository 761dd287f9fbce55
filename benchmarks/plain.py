"""Is the fast path right? The same students from the same seeds, trained on a plain path beside it.

    python benchmarks/plain.py --seeds 5 --check
    python benchmarks/plain.py --seeds 5 --device cuda      # there the fast path is in bfloat16, as a CUDA graph

The plain path is what a careful person would write first: one sample at a time is cropped, mirrored and overlaid; the
teacher is asked in each step; float32, one kernel at a time, the default memory format, no fused optimizer. It shares
with the fast path the initial weights and what chance decides (order, views, overlays), and no other code. Both round
differently, so the weights drift apart; the accuracies must not.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from scipy.stats import t
from torch import Tensor

from igkd_hpo.api.progress import make_progress
from igkd_hpo.assets.study_assets import Assets, open_assets, prepare_assets
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.batches import draw_plan
from igkd_hpo.search.controls import make_control
from igkd_hpo.search.trial import make_student, make_trial
from igkd_hpo.settings import Paths, Settings


def sample_of(image: Tensor, map_: Tensor, *, dy: int, dx: int, flip: bool, padding: int) -> tuple[Tensor, Tensor]:
    """One image (3, H, W) in [0, 1] and its map (H, W) in a view, cut out of their padded selves."""
    height, width = map_.shape
    views = []
    for part in (image, map_):
        view = F.pad(part, (padding,) * 4)[..., dy : dy + height, dx : dx + width]
        views.append(view.flip(-1) if flip else view)
    return views[0], views[1]


def train_plainly(study: Study, values: dict[str, Any], assets: Assets, *, seed: int, device: torch.device) -> float:
    """Train a student and return its validation accuracy, a fraction."""
    fast = make_trial(study, values, assets, seed=seed, device=torch.device("cpu")).training
    recipe = fast.recipe
    student = make_student(study, values, assets, seed=seed).to(device)
    # What the fast path decides for small data sets, see decision 3, belongs to the recipe.
    for mine, theirs in zip(student.modules(), fast.network.modules(), strict=True):
        if isinstance(mine, torch.nn.BatchNorm2d):
            mine.momentum = theirs.momentum
    teacher = assets.teachers.members[0].network.to(device).eval()
    optimizer = torch.optim.SGD(
        student.parameters(), recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay,
        foreach=False, fused=False,
    )  # fmt: skip
    images = assets.dataset.train_images.float() / 255
    assert assets.maps is not None
    maps = torch.from_numpy(assets.maps.array("maps")).float()
    labels = assets.dataset.train_labels
    steps = -(-len(images) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, cycle_momentum=False
    )
    for epoch in range(1, recipe.epochs + 1):
        plan = draw_plan(recipe, len(images), epoch)
        student.train()
        for step in range(steps):
            clean, seen = [], []
            for j, row in enumerate(plan.rows[step].tolist()):
                raised = (maps[row] / maps[row].max().clamp_min(1e-30)) ** plan.exponents[step, j]
                spread = raised.max() - raised.min()
                stretched = (raised - raised.min()) / spread if spread > 0 else torch.zeros_like(raised)
                view, its_map = sample_of(
                    images[row], stretched, dy=int(plan.views.dy[step, j]), dx=int(plan.views.dx[step, j]),
                    flip=bool(plan.views.flip[step, j]), padding=recipe.crop_padding,
                )  # fmt: skip
                strength = plan.strengths[step, j]
                clean.append(view)
                seen.append((1 - strength) * view + strength * its_map)
            with torch.no_grad():
                taught = teacher(torch.stack(clean).to(device))
            logits = student(torch.stack(seen).to(device))
            temperature = recipe.temperature
            soft = F.kl_div(
                F.log_softmax(logits / temperature, 1), F.softmax(taught / temperature, 1), reduction="batchmean"
            )
            hard = F.cross_entropy(logits, labels[plan.rows[step]].to(device))
            loss = recipe.alpha * temperature**2 * soft + (1 - recipe.alpha) * hard
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    student.eval()
    with torch.no_grad():
        answers = student(assets.dataset.validation_images.float().div(255).to(device)).argmax(1).cpu()
    return float((answers == assets.dataset.validation_labels).double().mean())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="instead of the study's 12")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the paths differ")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    digits = read_study(builtin_studies()["digits"]).model_dump()
    digits["training"] |= {} if options.epochs is None else {"epochs": options.epochs}
    study = Study.model_validate(digits)
    values = make_control("kd_ig", study.hyperparameters).hyperparameters
    lines = []
    with TemporaryDirectory() as folder, make_progress() as progress:
        settings = Settings(
            paths=Paths(root=Path(folder)), storage_url="sqlite://", data_root=Path(folder), allow_import=frozenset()
        )
        prepare_assets(study, settings, device=str(device), progress=progress)
        assets = open_assets(study, settings)
        with progress.task("seeds", options.seeds) as advance:
            for seed in range(options.seeds):
                trial = make_trial(study, values, assets, seed=seed, device=device)
                *_, last = trial.training.epochs()
                plain = train_plainly(study, values, assets, seed=seed, device=device)
                lines.append({"seed": seed, "fast": last.validation_accuracy, "plain": plain})
                advance(1)
    differences = [line["fast"] - line["plain"] for line in lines]
    half = float(t.ppf(0.975, len(lines) - 1)) * statistics.stdev(differences) / len(lines) ** 0.5
    mean = statistics.fmean(differences)
    found = {
        "execution": trial.execution.model_dump(mode="json"),
        "n_validation": len(assets.dataset.validation_labels),
        "lines": lines,
        "spread_of_seeds": statistics.stdev(line["plain"] for line in lines),
        "difference": mean,
        "interval": [mean - half, mean + half],
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for line in lines:
            print(f"seed {line['seed']}: fast {line['fast']:.2%}, plain {line['plain']:.2%}")
        print(
            f"fast minus plain {mean * 100:+.2f} points (95 %: {100 * (mean - half):+.2f} to "
            f"{100 * (mean + half):+.2f}); the seeds' own standard deviation is {100 * found['spread_of_seeds']:.2f}"
        )
    equal = mean - half <= 0 <= mean + half
    return int(options.check and not equal)


if __name__ == "__main__":
    sys.exit(main())
