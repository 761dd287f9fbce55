"""What memory the search takes on data of CIFAR-10's size, and whether its arrays are there once.

    python benchmarks/memory.py --check

Makes 50,000 images of 32x32 random pixels as a folder, and what a study needs of them through the project's own
commands: images, logits of 18 views (`--padding 4`: all 162, nine times the work and the table), maps. The teacher and
the students are one convolution and one layer, since the question is the data and what every process costs; the
activations of a real student come on top, and grow with its batch. Then `launch` with 1 and with 4 workers, whose
processes are looked at again and again: a page that several processes share counts once (PSS). What was made is found
again by the next run. Linux.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from igkd_hpo.config.commit import code_commit

MIB = 2**20
CLASSES = 10
LAYERS_REMOVED = 17  # of 18: the stem is left
SAMPLE_SECONDS = 0.3
Look = dict[str, list[dict[str, int]]]  # the memory of each process, by what it is for
STUDY = """
version: 1
name: memory-{workers}-{now}
dataset: {{name: folder, root: images-{images}, validation_fraction: 0.1}}
teacher: {{architecture: mobilenet_v2, width: 0.1, checkpoint: teacher.pt, normalize: none, logits: cached}}
attribution: {{n_steps: 2}}
augmentation: {{crop_padding: {padding}, horizontal_flip: true}}
training: {{epochs: 2}}
hyperparameters: {{alpha: 0.5, temperature: 4.0, overlay_probability: 0.5, overlay_strength: 0.5, learning_rate: 0.01,
  weight_decay: 0.0005, batch_size: 128, layers_removed: 17, width: 0.1}}
pruner: {{name: none}}
n_trials: {workers}
controls: []
"""


def make_inputs(folder: Path, images: int) -> None:
    """Random pixels around a colour of each class, a tenth as many for the test, and a teacher that tells colours."""
    import torch

    from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2

    random = np.random.default_rng(0)
    colours = random.integers(0, 128, (CLASSES, 3), dtype=np.uint8)
    target = folder / f"images-{images}"
    if not target.exists():
        part = target.with_name(target.name + ".part")
        for split, count in (("train", images // CLASSES), ("test", images // CLASSES // 10)):
            for label, colour in enumerate(colours):
                (part / split / str(label)).mkdir(parents=True, exist_ok=True)
                for number in range(count):
                    pixels = colour + random.integers(0, 128, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(part / split / str(label) / f"{number}.png", compress_level=0)
        part.rename(target)
    torch.manual_seed(0)
    body = mobilenet_v2(num_classes=CLASSES, width=0.1, layers_removed=LAYERS_REMOVED)
    optimizer = torch.optim.Adam(body.parameters(), lr=0.03)
    means = torch.from_numpy(colours).float()
    for _ in range(200):
        labels = torch.randint(CLASSES, (32,))
        pixels = (means[labels][:, :, None, None] + torch.randint(128, (32, 3, 32, 32))) / 255
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(body(pixels), labels).backward()
        optimizer.step()
    torch.save(body.state_dict(), folder / "teacher.pt")


def role(process: psutil.Process) -> str:
    """What a process of ours is for."""
    command = process.cmdline()
    parent = process.parent()
    if _is_fork_server(command):
        return "trial processes" if parent is not None and _is_fork_server(parent.cmdline()) else "fork servers"
    if any("multiprocessing.resource_tracker" in part for part in command):
        return "resource trackers"
    return "workers" if "worker" in command else "prepare" if "prepare" in command else "supervisor"


def _is_fork_server(command: list[str]) -> bool:
    """Of one that is forked from it too: both have the server's command."""
    return any("forkserver" in part or "fork_server" in part for part in command)


def memory_of(pid: int, below: Path) -> dict[str, int]:
    """Bytes of a process: resident, its share of shared pages, its own, and of the files below a folder."""
    found = dict.fromkeys(("rss", "pss", "own", "assets_pss", "assets_copied"), 0)
    fields = {"Rss": "rss", "Pss": "pss", "Private_Clean": "own", "Private_Dirty": "own"}
    of_assets = False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        name, *rest = line.split(maxsplit=5)
        if not name.endswith(":"):
            of_assets = len(rest) == 5 and rest[4].startswith(str(below))
            continue
        name = name[:-1]
        if name in fields:
            found[fields[name]] += int(rest[0]) * 1024
        if of_assets and name == "Pss":
            found["assets_pss"] += int(rest[0]) * 1024
        if of_assets and name == "Anonymous":
            found["assets_copied"] += int(rest[0]) * 1024
    return found


def look(root: psutil.Process, below: Path) -> Look:
    """The memory of all our processes, by what they are for."""
    found: Look = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            found.setdefault(role(process), []).append(memory_of(process.pid, below))
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has left
    if "workers" not in found and "trial processes" in found:
        found["prepare"] = found.pop("trial processes")  # forked from the same server, before there are workers
    return found


def watch(arguments: list[str], folder: Path, data: Path) -> dict[str, Any]:
    """Run a command of ours; the moment at which all its processes took most, while a trial trained if one did."""
    environment = os.environ | {"IGKD_HPO_DATA": str(data)}
    begun = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "igkd_hpo", *arguments], cwd=folder, env=environment, stdout=sys.stderr
    )
    root = psutil.Process(child.pid)
    peaks: dict[bool, tuple[int, Look]] = {}
    copied = 0
    while child.poll() is None:
        now = look(root, folder / "storage" / "assets")
        every = [process for processes in now.values() for process in processes]
        total = sum(process["pss"] for process in every)
        copied = max([copied, *(process["assets_copied"] for process in every)])
        trains = "trial processes" in now
        if total > peaks.get(trains, (0, {}))[0]:
            peaks[trains] = total, now
        time.sleep(SAMPLE_SECONDS)
    if child.returncode != 0:
        raise SystemExit(f"igkd-hpo {' '.join(arguments)} ended with exit code {child.returncode}")
    most, peak = peaks[max(peaks)]
    rows = {
        name: {"processes": len(processes)}
        | {key: round(sum(process[key] for process in processes) / MIB) for key in ("rss", "pss", "own", "assets_pss")}
        for name, processes in peak.items()
    }
    return {
        "command": " ".join([arguments[0], Path(arguments[1]).name, *arguments[2:]]),
        "seconds": round(time.monotonic() - begun),
        "peak_mib": round(most / MIB),
        "peak_before_trials_mib": round(peaks[False][0] / MIB),
        "assets_copied_mib": round(copied / MIB, 1),
        "rows": rows,
    }


def arrays(assets: Path) -> dict[str, float]:
    """Size of each array that a trial process opens, in MiB."""
    return {
        f"{path.parent.name.split('-')[0]}/{path.name}": round(path.stat().st_size / MIB, 1)
        for path in sorted(assets.glob("*/*.npy"))
        if not path.parent.name.startswith("test-split") and path.stat().st_size > MIB // 10
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--padding", type=int, default=1, help="of the crops: 1 makes 18 views, 4 CIFAR-10's 162")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--folder", type=Path, default=Path("storage/memory"), help="for images, assets and studies")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    data = options.folder.absolute()
    data.mkdir(parents=True, exist_ok=True)
    make_inputs(data, options.images)
    runs = []
    for workers in options.workers:
        file = data / f"memory-{workers}.yaml"
        values = {"workers": workers, "images": options.images, "padding": options.padding, "now": int(time.time())}
        file.write_text(STUDY.format(**values), encoding="utf-8")
        if not runs:
            runs.append(watch(["prepare", str(file)], data, data))
        runs.append(watch(["launch", str(file), "--workers", str(workers)], data, data))
    sizes = arrays(data / "storage" / "assets")
    total = sum(sizes.values())
    held = {run["command"]: sum(row["assets_pss"] for row in run["rows"].values()) for run in runs[1:]}
    goals = {
        "the arrays are in memory once, however many processes read them": max(held.values()) <= 1.05 * total,
        "no process copies pages of them": all(run["assets_copied_mib"] == 0 for run in runs[1:]),
    }
    found = {
        "images": options.images,
        "arrays_mib": sizes,
        "arrays_total_mib": round(total),
        "runs": runs,
        "goals": goals,
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, {platform.release()}",
        "python": platform.python_version(),
        "commit": code_commit(),
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return int(options.check and not all(goals.values()))


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(f"{found['images']} images; {found['hardware']}, Python {found['python']}, commit {found['commit']}")
    for name, size in found["arrays_mib"].items():
        print(f"  {name:36} {size:8.1f} MiB")
    print(f"  {'all arrays':36} {found['arrays_total_mib']:8} MiB")
    for run in found["runs"]:
        print(f"\n{run['command']}, {run['seconds']} s: {run['peak_before_trials_mib']} MiB before the first trial, "
              f"then at most {run['peak_mib']} MiB; of them")  # fmt: skip
        print(f"  {'':20} {'processes':>9} {'resident':>9} {'share':>7} {'own':>7} {'of arrays':>10}   MiB")
        for name, row in run["rows"].items():
            print(f"  {name:20} {row['processes']:9} {row['rss']:9} {row['pss']:7} {row['own']:7} "
                  f"{row['assets_pss']:10}")  # fmt: skip
    print()
    for goal, holds in found["goals"].items():
        print(f"{'reached' if holds else 'MISSED ':10} {goal}")


if __name__ == "__main__":
    sys.exit(main())
