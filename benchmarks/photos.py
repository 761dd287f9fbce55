"""How fast a trial on photographs is, beside what a user would write, and what memory it takes.

    python benchmarks/photos.py --check                  # 96, 128 and 224 pixels on a CPU, in about half an hour
    python benchmarks/photos.py --device cuda --images 20000 --batch 256 --loaders 8
    python benchmarks/photos.py --memory                 # four workers on 20,000 images of 224 pixels

The photographs are cut from those of scikit-image and scikit-learn and lie in JPEG files of 320x256 pixels. The
user's loop reads them with a DataLoader of two processes and torchvision's random resized crops and flips, and asks
the teacher (EfficientNet-Lite0) in each step. Ours has the teacher's answers to 16 boxes of each image in a table,
and its images as arrays that are resident, or as JPEGs that are streamed. Student, batch, precision, memory format
and number of threads are the same; of all, epochs of training are timed, neither preparation nor validation. Each arm
is a process of its own; they take turns in one run, in another order each round, and a ratio is of two epochs of one
round.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it

import numpy as np
import psutil
from PIL import Image

from igkd_hpo.config.commit import code_commit

CLASSES, VIEWS, SCALE = 10, 16, (0.35, 1.0)
WIDTH, HEIGHT = 320, 256  # of the files
STUDENT, TEACHER = "lcnet_050", "efficientnet_lite0"
GOAL = 3.0  # times the user's images per second, on a CPU
MIB = 2**20
ARMS = {"theirs": "what a user would write", "resident": "ours, arrays", "streamed": "ours, JPEGs read ahead"}


def make_files(folder: Path, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Cut so many squares and oblongs of the ten photographs, a class each, into train/; a few more into val/."""
    from igkd_hpo.sources.patches import _photographs

    target = folder / f"photographs-{count}-{size[0]}x{size[1]}"
    if target.exists():
        return target
    few = max(2, count // 1000)
    part, random = target.with_name(target.name + ".part"), np.random.default_rng(0)
    for name, photograph in _photographs().items():
        whole = Image.fromarray(photograph)
        for split, images in (("train", count // CLASSES), ("val", few), ("test", few)):
            (part / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(images):
                share = random.uniform(0.4, 1.0)
                width = share * min(whole.width, whole.height * size[0] / size[1])
                height = width * size[1] / size[0]
                left, top = random.uniform(0, whole.width - width), random.uniform(0, whole.height - height)
                cut = whole.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
                cut.save(part / split / name / f"{number:05d}.jpg", quality=90)
    part.rename(target)
    return target


def theirs(options: argparse.Namespace, files: Path, size: int) -> Callable[[], int]:
    """An epoch as the tutorials have it, and with what they recommend: v2 on uint8 tensors, channels last."""
    import timm
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    device = torch.device(options.device)
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(size, scale=SCALE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(files / "train"), transform),
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.loaders,
        persistent_workers=options.loaders > 0,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    student = timm.create_model(STUDENT, num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    teacher = timm.create_model(TEACHER, num_classes=CLASSES).to(device, memory_format=torch.channels_last).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    reduced = device.type == "cuda"

    def epoch() -> int:
        student.train()
        images = 0
        for loaded, of_files in loader:
            pixels = loaded.to(device, memory_format=torch.channels_last, non_blocking=True)
            labels = of_files.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                with torch.no_grad():
                    answers = teacher(pixels)
                logits = student(pixels)
            soft = F.kl_div(
                F.log_softmax(logits.float() / 4, 1), F.log_softmax(answers.float() / 4, 1),
                reduction="batchmean", log_target=True,
            )  # fmt: skip
            loss = 0.5 * 16 * soft + 0.5 * F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            images += len(labels)
        return images

    return epoch


def ours(options: argparse.Namespace, files: Path, size: int, store: str) -> Callable[[], int]:
    """An epoch of a trial, as the product runs it; the answers in the table are made up, which costs the same."""
    import torch

    from igkd_hpo.assets.dataset import prepare_dataset
    from igkd_hpo.assets.progress import SilentProgress
    from igkd_hpo.assets.store import AssetStore
    from igkd_hpo.config.dataset import DatasetConfig
    from igkd_hpo.distillation import streaming
    from igkd_hpo.distillation.architectures import Request, find_architecture
    from igkd_hpo.distillation.batches import TrainingData
    from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
    from igkd_hpo.distillation.models import Network
    from igkd_hpo.distillation.recipe import make_recipe, plain_values
    from igkd_hpo.distillation.teaching import CachedLogits
    from igkd_hpo.distillation.training import Training
    from igkd_hpo.settings import Paths, Settings

    device = torch.device(options.device)
    root = files.parent
    settings = Settings(paths=Paths(root=root / "storage"), storage_url="", data_root=root, allow_import=frozenset())
    config = DatasetConfig(name="folder", root=files.name, image_size=size, fit="crop", store=store)
    dataset = prepare_dataset(config, settings, AssetStore(settings.paths.assets), SilentProgress())
    if device.type == "cuda" and store == "jpeg":
        streaming._SHARE = 0.0  # as if they did not fit
    precision = resolve_precision("auto", device)
    recipe = make_recipe(
        plain_values()
        | {
            "epochs": 1_000_000, "batch_size": options.batch, "optimizer": "sgd", "schedule": "constant",
            "learning_rate": 0.01, "weight_decay": 5e-4, "temperature": 4.0, "alpha": 0.5,
            "overlay_probability": 0.0, "overlay_strength": 0.0, "crop_padding": 0, "horizontal_flip": True,
            "views": VIEWS, "scale": SCALE, "mixed": None, "seed": 0, "precision": precision, "channels_last": True,
            "compile": resolve_compile("auto", device, precision),
        }
    )  # fmt: skip
    name = f"timm/{STUDENT}"
    request = Request(name=name, num_classes=CLASSES, image_size=(size, size), allow_import=frozenset())
    network = Network(find_architecture(name).build(request), [0.5] * 3, [0.5] * 3)
    data = TrainingData(
        images=dataset.train_images,
        labels=dataset.train_labels,
        maps=None,
        validation_images=dataset.validation_images[:2],
        validation_labels=dataset.validation_labels[:2],
        digests=dataset.digests,
    )
    table = torch.randn(len(dataset.train_labels), VIEWS, CLASSES).half().to(device)
    epochs = Training(network, data, recipe, device=device, teaching=CachedLogits(table, VIEWS)).epochs()

    def epoch() -> int:
        next(epochs)
        return math.ceil(len(data.labels) / options.batch) * options.batch

    return epoch


def serve(pipe: Connection, options: argparse.Namespace, arm: str, files: Path, size: int) -> None:
    """One arm in a process of its own: an epoch, and its seconds, whenever it is asked."""
    import torch

    torch.set_num_threads(options.threads)
    stores = {"resident": "arrays", "streamed": "jpeg"}
    epoch = theirs(options, files, size) if arm == "theirs" else ours(options, files, size, stores[arm])
    pipe.send("ready")
    while pipe.recv():
        begun = time.perf_counter()
        images = epoch()
        if options.device != "cpu":
            torch.cuda.synchronize()
        pipe.send(images / (time.perf_counter() - begun))


def pss(root: psutil.Process) -> int:
    """Memory of a process and those below it, in bytes; a page that several share counts once."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (OSError, psutil.NoSuchProcess):
            continue  # it has left
    return total


class Arm:
    """A process that does epochs when it is asked, and the rates and the peak of memory that were seen."""

    def __init__(self, options: argparse.Namespace, arm: str, files: Path, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, options, arm, files, size))
        self._process.start()
        theirs.close()
        self._pipe.recv()
        self.rates: list[float] = []
        self.peak = 0

    def epoch(self) -> float:
        """Return its images per second."""
        self._pipe.send(True)
        root = psutil.Process(self._process.pid)
        while not self._pipe.poll(0.25):
            self.peak = max(self.peak, pss(root))
        return float(self._pipe.recv())

    def end(self) -> None:
        """Let it leave."""
        self._pipe.send(False)
        self._process.join()


def measure(options: argparse.Namespace, files: Path, size: int) -> dict[str, Any]:
    """Time all arms on images of a size; the first epoch of each warms up."""
    arms = {name: Arm(options, name, files, size) for name in ARMS}
    for arm in arms.values():
        arm.epoch()
        arm.peak = 0
    names = list(ARMS)
    for number in range(options.rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            arms[name].rates.append(arms[name].epoch())
    for arm in arms.values():
        arm.end()
    found: dict[str, Any] = {"size": size}
    for name, arm in arms.items():
        ratios = [mine / other for mine, other in zip(arm.rates, arms["theirs"].rates, strict=True)]
        found[name] = {
            "rate": spread(arm.rates),
            "ratio": spread(ratios),
            "pss_mib": round(arm.peak / MIB),
        }
    return found


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{found['size']} pixels{'':27} images/s               times theirs          MiB (PSS)")
    for name, says in ARMS.items():
        row = found[name]
        rate, ratio = (
            "{:7.1f} ({:.1f} to {:.1f})".format(*row["rate"]),
            "{:5.2f} ({:.2f} to {:.2f})".format(*row["ratio"]),
        )
        print(f"  {says:30} {rate:26} {ratio:22} {row['pss_mib']:6}", flush=True)


STUDY = """
version: 1
name: photos-{workers}-{now}
dataset: {{name: folder, root: {root}, image_size: 224, store: {store}}}
teacher: {{architecture: "colours:colours", normalize: none, logits: cached}}
augmentation: {{views: 2, scale: [0.5, 1.0]}}
training: {{epochs: 1}}
hyperparameters: {{architecture: "colours:colours", alpha: 0.5, temperature: 4.0, overlay_probability: 0.0,
  overlay_strength: 0.0, learning_rate: 0.01, batch_size: 64}}
pruner: {{name: none}}
n_trials: {workers}
controls: []
"""
COLOURS = '''
from pathlib import Path

import torch
from torch import nn

def colours(num_classes):
    """Mean colours and a layer: the question is the images, and what every process costs."""
    body = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))
    body.load_state_dict(torch.load(Path(__file__).with_name("colours.pt"), weights_only=True))
    return body
'''


def fit_colours(files: Path, target: Path) -> None:
    """Write a layer that tells the photographs apart by the colours of their parts, by least squares."""
    import torch
    import torch.nn.functional as F
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    images = ImageFolder(str(files / "val"), v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]))
    pixels, labels = map(list, zip(*images, strict=True))
    seen = F.adaptive_avg_pool2d(torch.stack(pixels), 4).flatten(1)
    wanted = F.one_hot(torch.tensor(labels), CLASSES).float()
    found = torch.linalg.lstsq(F.pad(seen, (0, 1), value=1.0), wanted).solution * 10
    torch.save({"2.weight": found[:-1].T.contiguous(), "2.bias": found[-1].contiguous()}, target)


def measure_memory(options: argparse.Namespace, folder: Path) -> None:
    """Run `launch`, and print the most that all processes took, as benchmarks/memory.py does."""
    from memory import watch

    root = make_files(folder, options.images, (224, 224))
    (folder / "colours.py").write_text(COLOURS)
    fit_colours(root, folder / "colours.pt")
    os.environ["IGKD_HPO_ALLOW_IMPORT"] = "colours"
    file = folder / "photos.yaml"
    values = {"workers": options.workers, "root": root.name, "now": int(time.time()), "store": options.store}
    file.write_text(STUDY.format(**values), encoding="utf-8")
    for arguments in (["prepare", str(file)], ["launch", str(file), "--workers", str(options.workers)]):
        print(json.dumps(watch(arguments, folder, folder)), flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128, 224])
    parser.add_argument("--images", type=int, help="640, or 20,000 for --memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--loaders", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each arm's own process")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="for images and what is made of them; a temporary one by default")
    parser.add_argument("--memory", action="store_true", help="measure the memory of a launch instead")
    parser.add_argument("--workers", type=int, default=4, help="of that launch")
    parser.add_argument("--store", default="jpeg", help="of that launch: jpeg or arrays")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    options.images = options.images or (20_000 if options.memory else 640)
    import torch

    from igkd_hpo.distillation.device import processor

    print(f"{processor(torch.device(options.device))}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"torch {torch.__version__}, commit {code_commit()}; {options.images} images, batch {options.batch}, "
          f"{options.threads} threads, {options.rounds} rounds", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if options.memory:
            measure_memory(options, folder)
            return 0
        files = make_files(folder, options.images)
        results = []
        for size in options.sizes:
            results.append(measure(options, files, size))
            show(results[-1])
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2), encoding="utf-8")
    reached = all(one["resident"]["ratio"][0] >= GOAL for one in results)
    print(
        f"\n{'reached' if reached else 'MISSED'}: {GOAL:g} times the user's images per second at every size, on a CPU"
    )
    return int(options.check and not reached)


if __name__ == "__main__":
    sys.exit(main())
