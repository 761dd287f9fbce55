"""Several trials on one device: K students in K processes, in threads with streams of their own, or as one network.

    python benchmarks/placement.py --trials 2,4,8

Images per second of all K together, against one student that has the device to itself. Every arrangement takes the
same step: forward, distillation loss, backward, SGD, on batches that are in place. In each round every arrangement runs
once, in fresh processes, so that a machine that gets slower is slower for all of them.

    alone      one student, one process
    processes  K processes side by side, as `launch --workers K` has them
    mps        the same under NVIDIA's Multi-Process Service, where nvidia-cuda-mps-control is installed
    streams    one process, K threads, each with a CUDA stream (on a CPU: threads)
    grouped    one process, K students in lockstep as one network of grouped convolutions
    vmap       the same by torch.func.vmap over stacked weights
"""

import argparse
import copy
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from igkd_hpo.config.commit import code_commit
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.losses import distillation_loss
from igkd_hpo.distillation.objectives import make_objective

CLASSES = 10
WARM_UP_STEPS = 3
ALONE, PROCESSES, MPS, STREAMS, GROUPED, VMAP = "alone", "processes", "mps", "streams", "grouped", "vmap"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every student does."""

    device: str
    width: float
    layers_removed: int
    image_size: int
    batch: int
    precision: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """One round of one arrangement: images per second of all students, and bytes of memory in use."""

    arrangement: str
    trials: int
    images_per_second: float
    memory: int


class GroupedLinear(nn.Module):
    """K linear layers side by side: (B, K * C) to (B, K, out)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, features: Tensor) -> Tensor:
        apart = features.view(len(features), len(self.weight), -1)
        return torch.einsum("bkc,koc->bko", apart, self.weight) + self.bias


def group(students: Sequence[nn.Module]) -> nn.Module:
    """One network that computes what K students of one architecture do: (B, K * 3, H, W) to (B, K, classes).

    Channels of student k come after those of student k - 1, in every layer.
    """
    whole = copy.deepcopy(students[0])
    for name, module in list(whole.named_modules()):
        parts = [student.get_submodule(name) for student in students]
        if isinstance(module, nn.Conv2d):
            replacement: nn.Module = nn.Conv2d(
                module.in_channels * len(parts),
                module.out_channels * len(parts),
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                groups=module.groups * len(parts),
                bias=module.bias is not None,
            )
        elif isinstance(module, nn.BatchNorm2d):
            replacement = nn.BatchNorm2d(module.num_features * len(parts), module.eps, module.momentum)
        elif isinstance(module, nn.Linear):
            whole.set_submodule(name, GroupedLinear([part for part in parts if isinstance(part, nn.Linear)]))
            continue
        else:
            continue
        states = [part.state_dict() for part in parts]
        replacement.load_state_dict(
            {
                key: torch.cat([state[key] for state in states]) if value.dim() else value
                for key, value in states[0].items()
            }
        )
        whole.set_submodule(name, replacement)
    return whole


def make_students(work: Work, count: int) -> list[nn.Module]:
    """Students with weights of their own, on the device."""
    device = torch.device(work.device)
    made = [
        mobilenet_v2(num_classes=CLASSES, width=work.width, layers_removed=work.layers_removed) for _ in range(count)
    ]
    return [student.to(device).to(memory_format=torch.channels_last) for student in made]  # type: ignore[call-overload]


def make_step(work: Work, arrangement: str, count: int) -> Callable[[], None]:
    """One step of `count` students in this arrangement of one process."""
    device = torch.device(work.device)
    size = (work.batch, 3 * count, work.image_size, work.image_size)
    pixels = torch.rand(size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (work.batch * count,), device=device)
    taught = torch.randn(work.batch * count, CLASSES, device=device)
    objective = make_objective("kd", {}, torch.bincount(labels))
    students = make_students(work, count)
    forward: Callable[[], Tensor]
    if arrangement == VMAP:
        parameters, buffers = torch.func.stack_module_state(students)
        base = copy.deepcopy(students[0]).to("meta")
        apart = pixels.view(work.batch, count, 3, work.image_size, work.image_size).transpose(0, 1).contiguous()

        def call(weights: dict[str, Tensor], state: dict[str, Tensor], seen: Tensor) -> Tensor:
            answer: Tensor = torch.func.functional_call(base, (weights, state), (seen,))
            return answer

        together = torch.func.vmap(call, randomness="different")

        def forward() -> Tensor:
            answers: Tensor = together(parameters, buffers, apart)
            return answers.transpose(0, 1)

        learned = list(parameters.values())
    else:
        network = students[0] if count == 1 else group(students).to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def forward() -> Tensor:
            answers: Tensor = network(pixels)
            return answers

        learned = list(network.parameters())
    optimizer = torch.optim.SGD(learned, lr=1e-6, momentum=0.9, nesterov=True, weight_decay=5e-4)
    half = work.precision != "float32"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = forward()
        flat = logits.float().reshape(work.batch * count, CLASSES)
        # The mean over all is 1 / count of the sum of the students' own losses.
        loss = count * distillation_loss(flat, taught, labels, temperature=4.0, alpha=0.5, objective=objective)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def work_on(
    work: Work, arrangement: str, count: int, threads: int, start: Barrier, pipe: Connection, variables: dict[str, str]
) -> None:
    """A process: `count` students in this arrangement; sends images per second and bytes."""
    os.environ.update(variables)  # before its first CUDA call
    keep_freed_memory()
    on_gpu = work.device.startswith("cuda")
    together = 1 if arrangement == STREAMS else count
    done = [0] * (count // together)
    seconds = [0.0] * len(done)
    begin = threading.Barrier(len(done), action=start.wait)

    def train(place: int) -> None:
        torch.set_num_threads(threads)  # of this thread's own
        stream = torch.cuda.Stream(work.device) if on_gpu and arrangement == STREAMS else None
        with torch.cuda.stream(stream) if stream else nullcontext():
            step = make_step(work, arrangement, together)
            for _ in range(WARM_UP_STEPS):
                step()
            _settle(work.device)
            begin.wait()
            begun = time.perf_counter()
            while time.perf_counter() - begun < work.seconds:
                step()
                done[place] += 1
                if on_gpu and done[place] % 20 == 0:  # else the queue grows while the clock runs
                    (stream or torch.cuda.current_stream(work.device)).synchronize()
            _settle(work.device)
            seconds[place] = time.perf_counter() - begun

    others = [threading.Thread(target=train, args=(place,)) for place in range(1, len(done))]
    for other in others:
        other.start()
    train(0)
    for other in others:
        other.join()
    rate = sum(work.batch * together * steps / taken for steps, taken in zip(done, seconds, strict=True))
    if on_gpu:
        free, total = torch.cuda.mem_get_info(work.device)
        memory = total - free  # everybody's
    else:
        memory = psutil.Process().memory_full_info().uss
    start.wait()  # nobody leaves, or lets go of memory, before all have looked
    pipe.send((rate, memory))


def _settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure(work: Work, arrangement: str, trials: int, variables: dict[str, str]) -> Run:
    """Run one arrangement once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["igkd_hpo.engines.local.trial_main", "rich.table"])
    cores = len(os.sched_getaffinity(0))
    apart = arrangement in {PROCESSES, MPS}
    processes = trials if apart else 1
    threads = max(1, cores // trials) if apart or arrangement == STREAMS else cores
    start = context.Barrier(processes)
    started, pipes = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        pipes.append(ours)
        inner = ALONE if apart else arrangement
        arguments = (work, inner, 1 if apart else trials, threads, start, theirs, variables)
        process = context.Process(target=work_on, args=arguments, daemon=True)
        process.start()
        theirs.close()
        started.append(process)
    answers = [pipe.recv() for pipe in pipes]
    for process in started:
        process.join()
    memory = max(found for _, found in answers) if work.device != "cpu" else sum(found for _, found in answers)
    return Run(
        arrangement=arrangement,
        trials=trials,
        images_per_second=sum(rate for rate, _ in answers),
        memory=memory,
    )


@contextmanager
def mps_variables(device: str) -> Iterator[dict[str, str] | None]:
    """Start the service; what its clients' environment needs. None where there is no service."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None or device == "cpu":
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in places.values():
            os.mkdir(place)
        subprocess.run([control, "-d"], env=os.environ | places, check=True)
        try:
            yield places
        finally:
            subprocess.run([control], input="quit\n", text=True, env=os.environ | places, check=False)


def measure_all(work: Work, counts: Sequence[int], rounds: int) -> list[Run]:
    """All arrangements, one after the other, so many times."""
    runs = []
    for number in range(rounds):
        plan = [(ALONE, 1)]
        plan += [(name, count) for count in counts for name in (PROCESSES, MPS, STREAMS, GROUPED, VMAP)]
        for name, count in plan:
            with mps_variables(work.device) if name == MPS else nullcontext({}) as variables:
                if variables is not None:
                    runs.append(measure(work, name, count, variables))
                    print(f"round {number + 1}: {runs[-1]}", file=sys.stderr)
    return runs


def summarise(runs: Sequence[Run]) -> list[dict[str, object]]:
    """For each arrangement: images per second and their ratio to one student alone, memory, n."""
    alone = statistics.fmean(run.images_per_second for run in runs if run.arrangement == ALONE)
    rows: list[dict[str, object]] = []
    for key in dict.fromkeys((run.arrangement, run.trials) for run in runs):
        rates = [run.images_per_second for run in runs if (run.arrangement, run.trials) == key]
        memory = max(run.memory for run in runs if (run.arrangement, run.trials) == key)
        rows.append(
            {
                "arrangement": key[0],
                "trials": key[1],
                "n": len(rates),
                "images_per_second": statistics.fmean(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "ratio": statistics.fmean(rates) / alone,
                "memory_mib": round(memory / (1 << 20)),
            }
        )
    return rows


def where(device: str) -> dict[str, str]:
    """Hardware, versions, commit."""
    commit = (code_commit() or "unknown")[:9]
    name = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    if device.startswith("cuda"):
        name += f", {torch.cuda.get_device_name(device)}"
    return {"hardware": name, "torch": torch.__version__, "python": platform.python_version(), "commit": commit}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="2,4", help="how many side by side, with commas")
    parser.add_argument("--device", default=None, help="cpu, or cuda:N; the first GPU where there is one")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--layers-removed", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    device = options.device or ("cuda:0" if torch.cuda.device_count() else "cpu")  # counting makes no context here
    work = Work(
        device=device,
        width=options.width,
        layers_removed=options.layers_removed,
        image_size=options.image_size,
        batch=options.batch,
        precision="float32" if device == "cpu" else "bfloat16",
        seconds=options.seconds,
    )
    rows = summarise(measure_all(work, [int(count) for count in options.trials.split(",")], options.rounds))
    found = {"work": asdict(work), **where(device), "rows": rows}
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    table = Table(title=f"{where(device)}, {asdict(work)}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "arrangement" else "right")
    for row in rows:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
