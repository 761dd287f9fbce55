"""The accuracy of each arm, several seeds, side by side on the one device, in the time that there is.

The arms, their studies and the questions are those of benchmarks/ablation.py; all have the same images, teacher,
logits, maps and seeds. First PROCESSES short trainings side by side say what an epoch costs when the device is full;
from that follows how many EPOCHS all arms and SEEDS get (MIN_EPOCHS to MAX_EPOCHS; one-cycle must know it beforehand).
Trainings go out seed by seed, so that whenever the time ends, the arms have about as many. Every line of accuracy.jsonl
is one training; `accuracy.py table FILE...` makes the table of any such files again.
"""

import json
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import kit
import torch
from kit import ablation

from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.distillation.step_graph import NotCaptured
from igkd_hpo.distillation.training import NonFiniteLoss
from igkd_hpo.trial.build import PreparedTrial, make_trial

# In the order of what they tell; each seed's round goes through all of them.
ARMS = (os.environ.get("ARMS") or "kd_ig,reference,student,kd,ig,paper-kd_ig").split(",")
SEEDS = kit.number("SEEDS", 5, 2)
PROCESSES = kit.number("PROCESSES", 10, 2)
EPOCHS = kit.number("EPOCHS", 0, 0)  # 0: as many as fit
MIN_EPOCHS, MAX_EPOCHS = kit.number("MIN_EPOCHS", 8, 1), kit.number("MAX_EPOCHS", 30, 2)
PILOT_EPOCHS = 2
RESERVE = 12.0  # seconds for the table and for leaving
FILL = 0.85  # of the time is planned for: the last round never fills all processes
OUTPUT = kit.OUT / "accuracy.jsonl"


def make(study: Study, assets: Assets, seed: int) -> PreparedTrial:
    """A trial whose steps are a graph where that can be: whether one is faster on a full device, is luck."""
    values, device = study.hyperparameters.fixed(), kit.device()
    if device.type == "cuda":
        graph = study.model_copy(update={"training": study.training.model_copy(update={"compile": "cuda_graph"})})
        try:
            return make_trial(graph, values, assets, seed=seed, device=device)
        except NotCaptured as reason:
            print(f"{study.name}, seed {seed}: {reason}", flush=True)
    return make_trial(study, values, assets, seed=seed, device=device)


def train(arm: str, seed: int, epochs: int, test: bool) -> dict[str, Any]:
    """One training and, with `test`, its test."""
    begun = time.perf_counter()
    study, settings, device = kit.study_of(arm, epochs=epochs), kit.settings(), kit.device()
    assets = open_assets(study, settings)
    line: dict[str, Any] = {
        "arm": arm, "seed": seed, "epochs": epochs, "commit": kit.COMMIT, "device": kit.DEVICE.partition(":")[0],
        "teacher_sha256": assets.teacher_sha256, "width": kit.WIDTH, "teacher_epochs": kit.TEACHER_EPOCHS,
    }  # fmt: skip
    trial = make(study, assets, seed)
    ready = time.perf_counter()
    each = []
    try:
        for epoch in trial.training.epochs():
            each.append(epoch.seconds)
    except NonFiniteLoss as error:
        return line | {"diverged_in_epoch": error.epoch, "n_test": 1, "whole": time.perf_counter() - begun,
                       "around": ready - begun, "epoch_seconds": statistics.median(each or [0.0])}  # fmt: skip
    line |= {
        "validation_accuracy": epoch.validation_accuracy, "train_loss": epoch.train_loss,
        "parameters": count_parameters(trial.training.network), "seconds": round(sum(each), 2),
        "epoch_seconds": round(statistics.median(each[1:] or each), 3), "compile": trial.training.compile,
        "precision": trial.training.recipe.precision, "images": len(trial.training.data.images),
    }  # fmt: skip
    around = time.perf_counter() - begun - sum(each)
    if test:
        images, labels = open_test(study.dataset, settings, purpose=TestPurpose.BENCHMARK)
        line |= {"test_accuracy": accuracy(predict(trial.training.network, images, device=device), labels),
                 "n_test": len(labels)}  # fmt: skip
    return line | {"around": round(around, 2), "whole": round(time.perf_counter() - begun, 2)}


def work(pipe: Connection, variables: dict[str, str]) -> None:
    """A process: trains what it is told to, until it is told nothing more or nobody is there to tell it."""
    os.environ.update(variables)  # before its first CUDA call
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        while (job := pipe.recv()) is not None:
            try:
                pipe.send(("done", train(*job)))
            except Exception:
                pipe.send(("failed", traceback.format_exc()))
                return  # a CUDA error stays with its process
    except (EOFError, OSError):
        return


@dataclass
class Crew:
    """The processes, and what each is at."""

    variables: dict[str, str]
    context: Any = field(default_factory=lambda: multiprocessing.get_context("forkserver"))
    at: dict[Connection, tuple[BaseProcess, tuple[Any, ...] | None, float]] = field(default_factory=dict)
    lost: int = 0

    def hire(self) -> None:
        """One more."""
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=work, args=(theirs, self.variables), daemon=True)
        process.start()
        theirs.close()
        self.at[ours] = (process, None, 0.0)

    @property
    def idle(self) -> list[Connection]:
        """Those without a job."""
        return [pipe for pipe, (_, job, _) in self.at.items() if job is None]

    @property
    def busy(self) -> bool:
        """Whether anyone has a job."""
        return len(self.idle) < len(self.at)

    def give(self, pipe: Connection, job: tuple[Any, ...]) -> None:
        """Send a job to somebody idle."""
        self.at[pipe] = (self.at[pipe][0], job, time.monotonic())
        pipe.send(job)

    def answers(self, seconds: float) -> list[dict[str, Any]]:
        """What has come within so many seconds; whoever failed is replaced, six times at most."""
        working = [pipe for pipe, (_, job, _) in self.at.items() if job is not None]
        found = []
        for pipe in connection.wait(working, timeout=max(0.0, seconds)):
            assert isinstance(pipe, Connection)
            process, job, _ = self.at[pipe]
            try:
                kind, answer = pipe.recv()
            except (EOFError, OSError):
                process.join(5)
                kind, answer = "failed", f"the process ended with code {process.exitcode}"
            if kind == "done":
                self.at[pipe] = (process, None, 0.0)
                found.append(answer)
                continue
            print(f"FAILED: {job}: {answer}", flush=True)
            self.lost += 1
            del self.at[pipe]
            pipe.close()
            if self.lost <= 6:
                self.hire()
        return found

    def close(self) -> None:
        """End them: the idle ones in order, as a shared service likes it, the others whatever they are at."""
        for pipe in self.idle:
            with suppress(OSError):
                pipe.send(None)
        until = time.monotonic() + 4
        for pipe, (process, job, _) in self.at.items():
            if job is None:
                process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join(2)
            pipe.close()
        self.at.clear()


def pilot(crew: Crew, deadline: float) -> dict[str, dict[str, float]]:
    """For each arm that was tried, the seconds of an epoch and of all around a training, with all processes at work."""
    tried = [("kd_ig", "reference")[place % 2] for place in range(PROCESSES)]
    for pipe, arm in zip(crew.idle, tried, strict=True):
        crew.give(pipe, (arm, 1000, PILOT_EPOCHS, False))
    found: dict[str, list[dict[str, Any]]] = {}
    while crew.busy and time.monotonic() < deadline:
        for line in crew.answers(min(2.0, deadline - time.monotonic())):
            found.setdefault(line["arm"], []).append(line)
    if len(found) < len(set(tried)):
        raise SystemExit("the short trainings did not end in time; is the device very slow?")
    return {
        arm: {name: statistics.fmean(line[name] for line in lines) for name in ("epoch_seconds", "around")}
        for arm, lines in found.items()
    }


def kind_of(arm: str) -> str:
    """Which of the two short trainings stands for the arm: the batches differ."""
    return "reference" if ablation.ARMS[arm].recipe is ablation.PAPER else "kd_ig"


def choose_epochs(costs: dict[str, dict[str, float]], seconds: float) -> int:
    """So many that all arms and seeds fit."""
    if EPOCHS:
        return EPOCHS
    around = sum(costs[kind_of(arm)]["around"] for arm in ARMS) / len(ARMS)
    epoch = sum(costs[kind_of(arm)]["epoch_seconds"] for arm in ARMS) / len(ARMS)
    each = FILL * seconds * PROCESSES / (len(ARMS) * SEEDS)
    return max(MIN_EPOCHS, min(MAX_EPOCHS, int((each - around) / epoch)))


def run(crew: Crew, lines: list[dict[str, Any]], deadline: float) -> str:
    """Everything; the lines come in as trainings end. What was done, in words."""
    for _ in range(PROCESSES):
        crew.hire()
    costs = pilot(crew, deadline)
    epochs = choose_epochs(costs, deadline - time.monotonic())
    rate = {arm: lines_of["epoch_seconds"] for arm, lines_of in costs.items()}
    plan = f"{PROCESSES} side by side: an epoch takes " + ", ".join(f"{s:.2f} s ({a})" for a, s in rate.items())
    print(
        f"{plan}; {epochs} epochs, {deadline - time.monotonic():.0f} s for {len(ARMS)} arms of {SEEDS} seeds",
        flush=True,
    )
    takes = {arm: costs[kind_of(arm)]["around"] + epochs * costs[kind_of(arm)]["epoch_seconds"] for arm in ARMS}
    wanted = [(arm, seed, epochs, True) for seed in range(SEEDS) for arm in ARMS]
    left_out = 0
    while (wanted or crew.busy) and crew.at:
        for pipe in crew.idle:
            while wanted and time.monotonic() + 1.1 * takes[wanted[0][0]] > deadline:
                wanted.pop(0)
                left_out += 1
            if wanted:
                crew.give(pipe, wanted.pop(0))
        if not crew.busy or time.monotonic() > deadline:
            break
        for line in crew.answers(min(2.0, deadline - time.monotonic())):
            lines.append(line)
            takes[line["arm"]] = max(takes[line["arm"]] * 0.9, line["whole"])
            with OUTPUT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{line['arm']}, seed {line['seed']}: {line.get('test_accuracy', 'diverged')} "
                  f"({line['whole']} s, {deadline - time.monotonic():.0f} s left)", flush=True)  # fmt: skip
    return (
        f"{plan}; {len(lines)} trainings of {epochs} epochs, {left_out} left out for lack of time, {crew.lost} failed"
    )


def table(lines: list[dict[str, Any]]) -> str:
    """Means, deviations and differences, for people."""
    if not lines:
        return "no training has ended"
    samples: dict[str, list[float]] = {}
    for line in lines:
        if "test_accuracy" in line:
            samples.setdefault(line["arm"], []).append(100 * line["test_accuracy"])
    first = next((line for line in lines if "test_accuracy" in line), lines[0])
    told = [
        (
            f"{first.get('images', 0):,} training images, {first['n_test']:,} test images, {first['epochs']} epochs, "
            f"{first.get('parameters', 0):,} parameters, {first.get('precision')}"
        ),
        f"{'arm':14} {'test, %':>8} {'sd':>6} {'n':>3} {'lowest':>7} {'highest':>8} {'s/epoch':>8}  compile, diverged",
    ]
    for arm in [*dict.fromkeys(line["arm"] for line in lines)]:
        mine, own = samples.get(arm, []), [line for line in lines if line["arm"] == arm]
        lost = sum("diverged_in_epoch" in line for line in own)
        spread = f"{statistics.stdev(mine):6.2f}" if len(mine) > 1 else f"{'':6}"
        value = (
            f"{statistics.fmean(mine):8.2f} {spread} {len(mine):3} {min(mine):7.2f} {max(mine):8.2f}"
            if mine
            else f"{'':8} {'':6} {0:3} {'':7} {'':8}"
        )
        pace = statistics.fmean(line["epoch_seconds"] for line in own)
        ways = ", ".join(sorted({str(line.get("compile")) for line in own}))
        told.append(f"{arm:14} {value} {pace:8.2f}  {ways}{f', {lost} diverged' if lost else ''}")
    whole = ablation.results(lines)
    told.append("differences, with intervals that hold for all at once (benchmarks/ablation.py):")
    told += [f"  {sentence}" for sentence in whole["sentences"]]
    told += [f"  {'reached' if holds else 'MISSED '}  {goal}" for goal, holds in whole["goals"].items()]
    return "\n".join(told)


def read(files: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of such files; several of one arm and seed: the last."""
    found = {}
    for name in files:
        for text in Path(name).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            found[line["arm"], line["seed"], line["epochs"], line["teacher_sha256"]] = line
    return list(found.values())


def main() -> int:
    """The command."""
    if sys.argv[1:2] == ["table"]:
        print(table(read(sys.argv[2:])))
        return 0
    if unknown := sorted({*ARMS} - {*ablation.ARMS}):
        raise SystemExit(f"no arm {', '.join(unknown)}; there are {', '.join(ablation.ARMS)}")
    kit.end_in_order()
    OUTPUT.unlink(missing_ok=True)
    open_assets(kit.needs(), kit.settings())  # says at once when the step `assets` has not ended
    deadline = time.monotonic() + kit.left() - RESERVE
    lines: list[dict[str, Any]] = []
    said = "nothing"
    multiprocessing.set_forkserver_preload(["accuracy", "igkd_hpo.trial.build"])
    with kit.mps() as variables:
        crew = Crew(variables)
        try:
            said = run(crew, lines, deadline)
        finally:
            crew.close()
    print(f"MPS {'on' if variables else 'off'}; {said}")
    print(table(lines))
    short = [arm for arm in ARMS if sum(line["arm"] == arm for line in lines) < 2]
    if short:
        print(f"fewer than 2 trainings of {', '.join(short)}")
    return int(bool(short) or crew.lost > 0)


if __name__ == "__main__":
    sys.exit(main())
