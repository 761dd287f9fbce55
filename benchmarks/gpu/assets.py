"""What the trainings need, made once and timed part by part; and the small study of the step `launch`.

    assets.py decode          # the images alone, on the CPU
    assets.py make            # images, teacher, logits of all views, attribution maps
    assets.py launch-study    # print a study file

`igkd-hpo prepare` makes the same assets with one process on a GPU. Batches of 64 images leave it waiting for that
process, so here several share the logits; the rate of one is measured first.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kit
import torch

from igkd_hpo.assets.attribution_maps import prepare_maps
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.logits import prepare_logits
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teachers import Teachers, prepare_teachers
from igkd_hpo.config.study import Study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.views import count_views
from igkd_hpo.terminal.progress import make_progress

PROCESSES = kit.number("ASSET_PROCESSES", 6, 1)
_timed: dict[str, float] = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print and keep the seconds that the block takes."""
    begun = time.monotonic()
    yield
    _timed[name] = round(time.monotonic() - begun, 1)
    print(f"{name}: {_timed[name]} s; {kit.left():.0f} s are left", flush=True)


def decode() -> None:
    """The images."""
    settings = kit.settings()
    with timed("decoding"), make_progress() as progress:
        found = prepare_dataset(kit.needs().dataset, settings, AssetStore(settings.paths.assets), progress)
    print(f"{len(found.train_images)} to train on, {len(found.validation_images)} to validate on, decoded in "
          f"{_timed['decoding']} s")  # fmt: skip


def teacher_rate(teachers: Teachers, views: int) -> float:
    """Images per second that one process asks the teacher about, as the table of logits is made."""
    device = kit.device()
    teaching = teachers.teaching(device)
    every = torch.arange(256, device=device) % views
    pixels = torch.rand(256, 3, 32, 32, device=device)
    rows = torch.zeros(256, dtype=torch.int64, device=device)
    done, begun, warm = 0, time.perf_counter(), False
    while True:
        teaching.logits(rows, every, pixels).cpu()
        done += 256
        seconds = time.perf_counter() - begun
        if not warm:
            done, begun, warm = 0, time.perf_counter(), True
        elif seconds > 1.5:
            return done / seconds


def make() -> None:
    """All of it; what an earlier call has made is found."""
    kit.end_in_order()
    keep_freed_memory()
    with kit.mps() as variables, make_progress() as progress:
        os.environ.update(variables)  # before the first CUDA call; children inherit it
        study, settings = kit.needs(), kit.settings()
        store, devices = AssetStore(settings.paths.assets), [kit.device()] * PROCESSES
        with timed("images"):
            dataset = prepare_dataset(study.dataset, settings, store, progress)
        with timed("teacher"):
            teachers = prepare_teachers(study, dataset, settings, store, device=devices[0], progress=progress)
        teacher = teachers.members[0]
        shutil.copyfile(teacher.folder / "weights.pt", kit.OUT / "teacher.pt")
        print(
            f"the teacher: {teacher.parameters:,} parameters, {teacher.validation_accuracy:.2%} of validation",
            flush=True,
        )
        views = count_views(study.augmentation)
        asked = views * len(dataset.train_images)
        rate = teacher_rate(teachers, views)
        print(f"one process asks the teacher about {rate:,.0f} images/s, so {views} views of all would take "
              f"{asked / rate:.0f} s", flush=True)  # fmt: skip
        with timed("logits"):
            prepare_logits(study, dataset, teachers, settings, store, devices=devices, progress=progress)
        with timed("maps"):
            maps = prepare_maps(study, dataset, teachers, settings, store, devices=devices, progress=progress)
    facts: dict[str, Any] = {
        "seconds": _timed, "processes": PROCESSES, "mps": bool(variables), "views": views,
        "teacher_images_per_second_alone": round(rate),
        "teacher_images_per_second_shared": round(asked / max(_timed["logits"], 1e-9)),
        "teacher_validation_accuracy": teacher.validation_accuracy, "teacher_epochs": kit.TEACHER_EPOCHS,
        "teacher": "given" if kit.TEACHER else "trained here", "hardware": kit.hardware(),
        "maps": None if maps is None else dict(maps.facts),
    }  # fmt: skip
    (kit.WORK / "assets.json").write_text(json.dumps(facts, indent=1, default=str))
    print(json.dumps(facts, default=str))


def launch_study() -> Study:
    """Two controls and some searched trials of the paper's student on a few images, with a published teacher."""
    small = kit.SMALL
    images = kit.ablation.take(kit.IMAGES, 100 if small else 2560, 40 if small else 1000, kit.WORK)
    assert kit.PUBLISHED is not None, "the published student is not there"
    document = {
        "name": "device-launch",
        "dataset": {"name": "folder", "root": str(images), "validation_fraction": 0.1},
        "teacher": {"checkpoint": str(kit.PUBLISHED), "normalize": "none", "logits": "cached"},
        "attribution": {"n_steps": 4 if small else 8},
        "augmentation": {"crop_padding": 0 if small else 4, "horizontal_flip": True},
        "training": {"epochs": 1 if small else 4, "optimizer": "sgd", "schedule": "one_cycle"},
        "hyperparameters": {
            "temperature": {"type": "float", "low": 1.0, "high": 8.0},
            "alpha": {"type": "float", "low": 0.0, "high": 1.0},
            "overlay_probability": 0.1, "overlay_strength": 0.5, "learning_rate": 0.1, "weight_decay": 5e-4,
            "batch_size": 32 if small else 128, "layers_removed": 11 if small else 5, "width": 0.1 if small else 1.0,
        },
        "pruner": {"name": "none"},
        "controls": ["student"] if small else ["student", "kd_ig"],
        "n_trials": 2 if small else 8,
    }  # fmt: skip
    return Study.model_validate_json(json.dumps(document))


def main() -> int:
    """The command."""
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    if what == "decode":
        decode()
    elif what == "make":
        make()
    elif what == "launch-study":
        print(to_yaml(launch_study()))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
