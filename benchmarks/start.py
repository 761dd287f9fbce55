"""How long a launch takes until all its workers have trained an epoch, with the assets there, and what CPU it costs.

    python benchmarks/start.py --workers 1 4 --check

The study is `digits` with a small teacher and a tiny student, so that almost all of the time is starting up. After it,
what `--help` and `status` take.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from igkd_hpo.errors import IgkdError
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import open_study

STUDY = """\
version: 1
name: start
dataset: {name: digits}
teacher: {width: 0.25, epochs: 2}
attribution: {n_steps: 2}
augmentation: {crop_padding: 1, horizontal_flip: false}
training: {epochs: 100}
hyperparameters:
  temperature: {type: float, low: 1.0, high: 8.0}
  alpha: {type: float, low: 0.0, high: 1.0}
  overlay_probability: 0.1
  overlay_strength: 0.5
  learning_rate: {type: float, low: 1.0e-3, high: 1.0, log: true}
  batch_size: 128
  layers_removed: 14
  width: 0.1
pruner: {name: none}
n_trials: 100
controls: []
"""
PATIENCE_SECONDS = 300.0
LAUNCH_WORKERS, LAUNCH_GOAL = 4, 4.0  # seconds to the first epoch of so many workers
COMMAND_GOAL = 0.3  # seconds


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and all that it started, those that have ended included."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def epochs_begun(url: str) -> int:
    """How many trials have an epoch."""
    try:
        storage = open_storage(url, create=False)
    except IgkdError:
        return 0
    try:
        return sum(bool(trial.intermediate_values) for trial in open_study(storage, "start").trials())
    except IgkdError:
        return 0
    finally:
        storage.engine.dispose()


def launch(folder: Path, workers: int) -> tuple[float, float]:
    """Seconds and CPU seconds until every worker has an epoch."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("IGKD_HPO_", "OPTUNA_"))}
    for left in (folder / "storage").glob("igkd_hpo.db*"):
        left.unlink()
    command = [sys.executable, "-m", "igkd_hpo", "launch", "study.yaml", "--workers", str(workers), "--device", "cpu"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while epochs_begun(f"sqlite:///{folder}/storage/igkd_hpo.db") < workers:
            if process.poll() is not None or time.perf_counter() - begun > PATIENCE_SECONDS:
                raise SystemExit(f"the launch did not get so far; exit code {process.returncode}")
            time.sleep(0.1)
        return time.perf_counter() - begun, cpu_seconds(psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def command(folder: Path, word: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a command that shows something."""
    cpu, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "igkd_hpo", word], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begun, os.times()
    return seconds, sum(after[2:4]) - sum(cpu[2:4])  # of children


def summary(what: dict[str, Any], taken: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians, and the span of the seconds."""
    seconds, cpu = zip(*taken, strict=True)
    span = [round(min(seconds), 2), round(max(seconds), 2)]
    middle = {"seconds": round(median(seconds), 2), "seconds_from_to": span, "cpu_seconds": round(median(cpu), 2)}
    return {**what, "n": len(taken), **middle}


def missed(found: list[dict[str, Any]]) -> list[str]:
    """The goals that were missed."""
    goals = [
        (f"{one['workers']} workers" if "workers" in one else one["command"], one["seconds"], goal)
        for one in found
        if (goal := LAUNCH_GOAL if one.get("workers") == LAUNCH_WORKERS else COMMAND_GOAL if "command" in one else None)
    ]
    return [f"{what}: {seconds} s, the goal is {goal:g}" for what, seconds, goal in goals if seconds > goal]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(STUDY)
        subprocess.run(
            [sys.executable, "-m", "igkd_hpo", "prepare", "study.yaml"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for workers in options.workers:
            taken = [launch(folder, workers) for _ in range(options.times)]
            found.append(summary({"workers": workers}, taken))
            if not options.json:
                print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
        for word in ("--help", "status"):
            found.append(summary({"command": word}, [command(folder, word) for _ in range(2 * options.times)]))
            if not options.json:
                print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    if options.json:
        print(json.dumps(found, indent=2))
    for goal in (lacking := missed(found)):
        print(f"MISSED   {goal}", file=sys.stderr)
    return int(options.check and bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
