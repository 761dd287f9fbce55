"""How fast trials are: against the paper's pipeline, against the bare step, and against what memory allows.

    python benchmarks/speed.py                        # on a CPU in under 10 minutes, on a GPU in under 8
    python benchmarks/speed.py --check --json speed.json
    python benchmarks/speed.py --profile              # one epoch, operator by operator, and how long nothing ran
    python benchmarks/speed.py --images FOLDER --teacher student.pt    # attribution on real images, with ranks compared

The arms take turns in one run, so that a machine that slows down slows all of them; a ratio is of medians over the
rounds, with the lowest and the highest ratio of one round beside it. The images are noise in the shape of CIFAR-10 (but
for --images): what they show costs no time. A trial is 100 epochs of 50,000 images with a test or validation of a fifth
as many after each; `side by side` runs one trial per core, or --processes of them on a GPU, at the same time.
"""

import argparse
import copy
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it

import numpy as np
import torch
import torch.nn.functional as F
from reference import IG_STEPS, LAYERS_REMOVED, Reference, attribute, make_images
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from igkd_hpo.assets.map_plan import choose_steps
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.reading import read_study
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.attribution import integrated_gradients, rank_correlation
from igkd_hpo.distillation.batch_norm import fold_batch_norm
from igkd_hpo.distillation.batches import TrainingData, draw_plan
from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.distillation.optimization import make_optimizer
from igkd_hpo.distillation.pointwise import multiply_pointwise
from igkd_hpo.distillation.recipe import Recipe, make_recipe, plain_values
from igkd_hpo.distillation.step_graph import NotCaptured, StepGraph
from igkd_hpo.distillation.teaching import CachedLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import count_views, make_views

EPOCHS, IMAGES = 100, 50_000  # of the trial that is extrapolated to
VALIDATED = 5  # one image is validated on for so many that are trained on
THROUGHPUT = {"cpu": 2.5, "cuda": 20.0}
OVERHEAD = 0.05
ATTRIBUTION = {"cpu": 6.0, "cuda": 10.0}
FLOOR = {"cpu": 2.5, "cuda": 2.0}  # times what the bare step's memory traffic needs
RANK = 0.98
IG_POINTS = {"cpu": 64, "cuda": 1024}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)  # CIFAR-10


@dataclass(kw_only=True)
class Arm:
    """One thing that is timed.

    Args:
        run: does it once; returns how many images that was.
        seconds: of each round.
    """

    says: str
    run: Callable[[], int]
    seconds: list[float] = field(default_factory=list)
    images: int = 0

    def once(self, device: torch.device) -> None:
        """One round."""
        begun = time.perf_counter()
        self.images = self.run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds.append(time.perf_counter() - begun)

    @property
    def rate(self) -> float:
        """Images per second, the median."""
        return self.images / statistics.median(self.seconds)


def kd_ig_recipe(device: torch.device, batch: int) -> Recipe:
    """What the built-in cifar10 study trains with, KD and IG both on."""
    study = read_study(builtin_studies()["cifar10"])
    precision = resolve_precision("auto", device)
    return make_recipe(
        {
            **plain_values(),
            **study.training.model_dump(),
            **dict(study.augmentation),
            "epochs": 1_000_000,
            "batch_size": batch,
            "learning_rate": 0.1,
            "temperature": 4.0,
            "alpha": 0.9,
            "overlay_probability": 0.1,
            "overlay_strength": 0.5,
            "seed": 0,
            "precision": precision,
            "channels_last": True,
            "compile": resolve_compile("auto", device, precision),
        }
    )


def make_student() -> Network:
    """The paper's student: 543,498 parameters."""
    return Network(mobilenet_v2(num_classes=10, layers_removed=LAYERS_REMOVED), MEAN, STD)


def make_training(count: int, validation: int, device: torch.device, batch: int) -> Training:
    """Ours, as a trial builds it: cached logits of all views, maps, everything on the device."""
    recipe = kd_ig_recipe(device, batch)
    train, held_out = make_images(count), make_images(max(validation, 2), seed=1)
    views = count_views(recipe)
    table = torch.randn(count, views, 10, dtype=torch.float16)

    def images(pixels: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    data = TrainingData(
        images=images(train.pixels),
        labels=torch.from_numpy(train.labels),
        maps=torch.from_numpy(train.maps).half(),
        validation_images=images(held_out.pixels),
        validation_labels=torch.from_numpy(held_out.labels),
    )
    teaching = CachedLogits(table.to(device), views)
    return Training(make_student(), data, recipe, device=device, teaching=teaching)


def epochs_of(training: Training) -> Callable[[], int]:
    """One epoch at each call."""
    running = training.epochs()

    def run() -> int:
        next(running)
        return len(training.data.images)

    return run


def bare_steps(count: int, device: torch.device, batch: int) -> Callable[[], int]:
    """Forward, backward and optimizer on tensors in place, in the execution of ours."""
    recipe = kd_ig_recipe(device, batch)
    network = make_student().to(device).to(memory_format=torch.channels_last).train()
    multiply_pointwise(network, torch.channels_last)
    optimizer = make_optimizer(network.parameters(), recipe.optimizer, 0.1, recipe.weight_decay, device)
    pixels = torch.rand(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=device)
    dtype = getattr(torch, recipe.precision)

    def step(*_: object) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(pixels)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    plan = draw_plan(recipe, make_views(recipe, None), 2 * batch, 1).to(device)
    graph = None
    if recipe.compile != "none":
        try:
            graph = StepGraph(step, plan, [network], optimizer)
        except NotCaptured as reason:
            print(f"bare steps run one kernel at a time: {reason}", file=sys.stderr)

    def run() -> int:
        for _ in range(-(-count // batch)):
            if graph is None:
                step()
            else:
                graph.replay(plan, 0)
        return count

    return run


def _train_when_told(pipe: Connection, count: int, device: str, threads: int, batch: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    run = epochs_of(make_training(count, count // VALIDATED, torch.device(device), batch))
    run()
    pipe.send("ready")
    while pipe.recv() == "go":
        pipe.send(run())


class SideBySide:
    """Several trials at the same time, each in a process of its own, as workers run them."""

    def __init__(self, processes: int, count: int, device: torch.device, batch: int) -> None:
        context = multiprocessing.get_context("spawn")
        threads = max(1, len(os.sched_getaffinity(0)) // processes)
        self.pipes, self.processes = [], []
        for _ in range(processes):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_train_when_told, args=(theirs, count, str(device), threads, batch), daemon=True
            )
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def run(self) -> int:
        """One epoch of each."""
        for pipe in self.pipes:
            pipe.send("go")
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self) -> None:
        """End them."""
        for pipe in self.pipes:
            pipe.send("stop")
        for process in self.processes:
            process.join()


def floor_seconds(network: nn.Module, batch: int, size: int, dtype: torch.dtype, device: torch.device) -> float:
    """What a step's convolutions must move through memory, over what the memory moves in a second.

    Each convolution reads its input and writes its output once, and three times as much with the backward pass;
    normalisation, activation and weights are free. Nothing that keeps its activations in memory can be faster.
    """
    moved = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += inputs[0].numel() + output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network.eval()(torch.rand(2, 3, size, size))
    for hook in hooks:
        hook.remove()
    return 3 * moved / 2 * batch * dtype.itemsize / bandwidth(device)


def bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy of 256 MB reads and writes, the best of ten."""
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        begun = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - begun))
    return best


def profiled(count: int, device: torch.device, batch: int) -> str:
    """One epoch by operator, and the share of its time in which none ran on the device."""
    run = epochs_of(make_training(count, count // VALIDATED, device, batch))
    run()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as found:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if (event.device_type == torch.autograd.DeviceType.CUDA if device.type == "cuda" else _is_work(event.name))
    )
    busy = gap = 0.0
    end = spans[0][0]
    for start, stop in spans:
        gap = max(gap, start - end)
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    whole = end - spans[0][0]
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table: str = found.key_averages().table(sort_by=key, row_limit=16, max_name_column_width=44)
    return (
        f"{table}\nan operator ran for {busy / whole:.1%} of {whole / 1e6:.2f} s; the longest gap was "
        f"{gap / 1e3:.2f} ms, {gap / whole:.2%} of the epoch\n"
    )


def _is_work(name: str) -> bool:
    return name.startswith(("aten::", "autograd::", "Optimizer."))


def real_images(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """The first images of a folder `train/<class>/*`, one class after the other: pixels in [0, 1] and labels."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    found = ImageFolder(str(folder / "train"))
    chosen = [found[index] for index in np.linspace(0, len(found) - 1, count).astype(int).tolist()]
    pixels = torch.stack([pil_to_tensor(image) for image, _ in chosen]).float() / 255
    return pixels, torch.tensor([label for _, label in chosen])


def attribution_arms(
    options: argparse.Namespace, device: torch.device
) -> tuple[list[Arm], int, Callable[[], float | None]]:
    """The published call and ours on the same images, our steps, and how well ours agree with maps of 200 steps."""
    torch.manual_seed(0)
    body = mobilenet_v2(num_classes=10, layers_removed=LAYERS_REMOVED)
    if options.teacher is not None:
        body.load_state_dict(torch.load(options.teacher, map_location="cpu", weights_only=True))
    count = options.ig_images
    if options.images is not None:
        pixels, labels = real_images(options.images, count)
    else:
        pixels, labels = torch.rand(count, 3, 32, 32), torch.randint(10, (count,))
    plain = body.eval()
    taken = Network(copy.deepcopy(plain), [0.0] * 3, [1.0] * 3)  # the published students take pixels as they are
    network = taken.to(memory_format=torch.channels_last).eval()  # as teachers are opened
    multiply_pointwise(network, torch.channels_last)
    network = fold_batch_norm(network, pixels[:1]).to(device)
    plain, pixels, labels = plain.to(device), pixels.to(device), labels.to(device)
    few = slice(0, min(count, 8 if device.type == "cpu" else count))

    def ours(steps: int) -> Tensor:
        maps, _ = integrated_gradients(
            network, pixels, labels, baseline=torch.zeros(3), n_steps=steps, points=IG_POINTS[device.type]
        )
        return maps

    def published() -> int:
        attribute(plain, pixels[few], labels[few])
        return len(labels[few])

    real = options.images is not None and options.teacher is not None
    steps = options.ig_steps or (choose_steps(ours)[0] if real else 16)

    def own() -> int:
        ours(steps)
        return count

    def agreement() -> float | None:
        return float(rank_correlation(ours(steps), ours(200)).mean()) if real else None

    arms = [
        Arm(says=f"IG maps as published ({IG_STEPS} steps)", run=published),
        Arm(says=f"IG maps, ours ({steps} steps)", run=own),
    ]
    return arms, steps, agreement


def ratio_of(arm: Arm, base: Arm) -> dict[str, float]:
    """How many times as fast: of the medians, and the lowest and highest of one round."""
    each = [
        (arm.images / mine) / (base.images / theirs) for mine, theirs in zip(arm.seconds, base.seconds, strict=True)
    ]
    return {"ratio": arm.rate / base.rate, "lowest": min(each), "highest": max(each)}


def take_turns(arms: list[Arm], rounds: int, device: torch.device) -> None:
    """All arms in each round, after one that warms up."""
    for number in range(1 + rounds):
        # In turn from both ends: an arm that follows one with blocks of the same sizes finds memory laid out for it.
        for arm in arms if number % 2 else reversed(arms):
            arm.once(device)
            if number == 0:
                arm.seconds.clear()
        print(f"round {number} of {rounds} done", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything; the arms take turns."""
    batch, count = options.batch, options.count
    processes = options.processes or (len(os.sched_getaffinity(0)) if device.type == "cpu" else 4)
    train, test = make_images(count), make_images(count // VALIDATED, seed=1)
    one = Reference(train, test, device=device)
    several = Reference(train, test, device=device, loader_processes=min(16, len(os.sched_getaffinity(0))))
    begun = time.perf_counter()
    training = make_training(count, count // VALIDATED, device, batch)
    setup = time.perf_counter() - begun
    together = SideBySide(processes, count, device, batch)

    def epoch_of(reference: Reference) -> Callable[[], int]:
        def run() -> int:
            reference.epoch()
            return count

        return run

    arms = {
        "reference": Arm(says="the paper's pipeline, one process", run=epoch_of(one)),
        "reference-loaders": Arm(says="the paper's pipeline, loader processes", run=epoch_of(several)),
        "ours": Arm(says="ours, one trial", run=epochs_of(training)),
        "side-by-side": Arm(says=f"ours, {processes} trials side by side", run=together.run),
        "steps": Arm(says="our steps, no validation", run=epochs_of(make_training(count, 2, device, batch))),
        "bare": Arm(says="bare steps on tensors in place", run=bare_steps(count, device, batch)),
    }
    take_turns([*arms.values()], options.rounds, device)
    together.close()
    attributing, ig_steps, agreement = attribution_arms(options, device)
    # Afterwards, because it leaves this process with gigabytes, which each loader process would have been forked with.
    take_turns(attributing, options.rounds, device)
    student = make_student()
    dtype = getattr(torch, training.recipe.precision)
    floor = floor_seconds(student, batch, 32, dtype, device)
    bare_step = batch / arms["bare"].rate
    overheads = [own / bare - 1 for own, bare in zip(arms["steps"].seconds, arms["bare"].seconds, strict=True)]

    def hourly(arm: Arm) -> float:
        return 3600 / (setup / (arm.images / count) + EPOCHS * IMAGES / arm.rate)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "hardware": f"{name}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": (code_commit() or "unknown")[:9],
        "n": options.rounds,
        "images": count,
        "batch": batch,
        "parameters": count_parameters(student),
        "precision": training.recipe.precision,
        "compile": training.compile,
        "setup_seconds": setup,
        "arms": {
            key: {
                "says": arm.says,
                "images_per_second": arm.rate,
                "lowest": arm.images / max(arm.seconds),
                "highest": arm.images / min(arm.seconds),
                "epoch_seconds": IMAGES / arm.rate,
                "trials_per_hour": hourly(arm),
                "against_reference": ratio_of(arm, arms["reference"]),
                "against_loaders": ratio_of(arm, arms["reference-loaders"]),
            }
            for key, arm in arms.items()
        },
        "overhead": {
            "ratio": statistics.median(arms["steps"].seconds) / statistics.median(arms["bare"].seconds) - 1,
            "lowest": min(overheads),
            "highest": max(overheads),
        },
        "floor": {"step_seconds": floor, "bare_step_seconds": bare_step, "times_the_floor": bare_step / floor},
        "attribution": {
            "published": attributing[0].rate,
            "ours": attributing[1].rate,
            "steps": ig_steps,
            "rank_correlation": agreement(),
        }
        | ratio_of(attributing[1], attributing[0]),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def goals(found: dict[str, Any], device: str) -> dict[str, bool]:
    """What is to be reached, and whether it is."""
    best = max(found["arms"][key]["against_reference"]["ratio"] for key in ("ours", "side-by-side"))
    rank = found["attribution"]["rank_correlation"]
    reached = {
        f"trials: {THROUGHPUT[device]:g} times the paper's pipeline": best >= THROUGHPUT[device],
        f"a step: at most {OVERHEAD:.0%} more than the bare one": found["overhead"]["ratio"] <= OVERHEAD,
        f"the bare step: at most {FLOOR[device]:g} times its memory traffic": (
            found["floor"]["times_the_floor"] <= FLOOR[device]
        ),
        f"IG maps: {ATTRIBUTION[device]:g} times the published call": (
            found["attribution"]["ratio"] >= ATTRIBUTION[device]
        ),
    }
    return reached | ({} if rank is None else {f"IG maps: rank correlation {RANK} or better": rank >= RANK})


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(
        f"{found['hardware']}; torch {found['torch']}, commit {found['commit']}\n{found['parameters']:,} parameters, "
        f"batch {found['batch']}, {found['precision']}, compile {found['compile']}; n {found['n']} rounds of "
        f"{found['images']} images\n"
    )
    print(f"{'':42}{'images/s':>9} {'(range)':>15} {'epoch':>8} {'trials/h':>9} {'times':>7} {'(range)':>13}")
    for arm in found["arms"].values():
        times = arm["against_reference"]
        spread, span = (
            f"({arm['lowest']:,.0f}-{arm['highest']:,.0f})",
            f"({times['lowest']:.2f}-{times['highest']:.2f})",
        )
        print(
            f"{arm['says']:42}{arm['images_per_second']:>9,.0f} {spread:>15} {arm['epoch_seconds']:>6,.0f} s "
            f"{arm['trials_per_hour']:>9.3f} {times['ratio']:>7.2f} {span:>13}"
        )
    overhead, floor, maps = found["overhead"], found["floor"], found["attribution"]
    print(
        f"\nour step takes {overhead['ratio']:+.1%} against the bare one ({overhead['lowest']:+.1%} to "
        f"{overhead['highest']:+.1%})\nthe bare step takes {1e3 * floor['bare_step_seconds']:.1f} ms, "
        f"{floor['times_the_floor']:.1f} times the floor of memory bandwidth\nIG maps: {maps['ours']:.2f} images/s, "
        f"as published {maps['published']:.2f}: {maps['ratio']:.2f} times ({maps['lowest']:.2f} to "
        f"{maps['highest']:.2f})"
        + ("" if maps["rank_correlation"] is None else f", rank correlation {maps['rank_correlation']:.4f}")
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--count", type=int, help="training images of an epoch; 512 on a CPU, 50,000 on a GPU")
    parser.add_argument("--batch", type=int, default=128, help="of ours; the paper's is 64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, help="trials side by side; one per core, 4 on a GPU")
    parser.add_argument("--ig-images", type=int, default=24)
    parser.add_argument("--ig-steps", type=int, help="what `n_steps: auto` chooses; 16 without --images and --teacher")
    parser.add_argument("--images", type=Path, help="a folder with train/<class>/* for the attribution")
    parser.add_argument("--teacher", type=Path, help="a state dict of the 543,498-parameter student to attribute")
    parser.add_argument("--profile", action="store_true", help="profile one epoch instead")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    device = torch.device(options.device)
    options.count = options.count or (512 if device.type == "cpu" else IMAGES)
    keep_freed_memory()
    if options.profile:
        print(profiled(options.count, device, options.batch))
        return 0
    found = measure(options, device)
    reached = goals(found, device.type)
    show(found)
    for goal, holds in reached.items():
        print(f"{'reached' if holds else 'MISSED '}  {goal}")
    if options.json is not None:
        options.json.write_text(json.dumps(found | {"goals": reached}, indent=2) + "\n")
    return int(options.check and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
