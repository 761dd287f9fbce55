"""What the steps share: sizes, folders, and the studies of the arms, which are those of benchmarks/ablation.py."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

PROJECT = Path(os.environ["KIT_PROJECT"])
WORK = Path(os.environ["KIT_WORK"])
OUT = Path(os.environ["KIT_OUT"])
DEVICE = os.environ["KIT_DEVICE"]
IMAGES = Path(os.environ["KIT_IMAGES"])
PUBLISHED = Path(os.environ["KIT_PUBLISHED"]) if os.environ.get("KIT_PUBLISHED") else None
COMMIT = os.environ.get("KIT_COMMIT", "unknown")
SMALL = bool(os.environ.get("KIT_SMALL"))
BEGUN = time.monotonic()
SECONDS = float(os.environ.get("KIT_SECONDS", "540"))  # until `on-device` ends the step

sys.path.insert(0, str(PROJECT / "benchmarks"))

import ablation  # noqa: E402
import torch  # noqa: E402
from mps import service  # noqa: E402

from igkd_hpo.config.study import Study  # noqa: E402
from igkd_hpo.settings import Paths, Settings  # noqa: E402


def number(name: str, usual: int, small: int) -> int:
    """A size: the variable of that name, else the usual one, on a CPU a small one."""
    return int(os.environ.get(name) or (small if SMALL else usual))


TEACHER_EPOCHS = number("TEACHER_EPOCHS", 30, 1)
CROP = number("CROP", 4, 0)  # 162 views; 2 makes 50
TRAIN_IMAGES = number("TRAIN_IMAGES", 0, 100) or None  # None takes all 50,000
TEST_IMAGES = number("TEST_IMAGES", 0, 40) or None
WIDTH = float(os.environ.get("WIDTH") or (0.1 if SMALL else 1.0))  # of the students
LAYERS_REMOVED = number("LAYERS_REMOVED", 5, 11 if SMALL else 5)
LOGITS = os.environ.get("LOGITS") or "cached"
IG_STEPS = number("IG_STEPS", 16, 2)
# A teacher that is there: the one that an earlier call brought back as teacher.pt, or, in a small run, a published one.
TEACHER = Path(os.environ["TEACHER"]).resolve() if os.environ.get("TEACHER") else PUBLISHED if SMALL else None
TEACHER_NORMALIZE = "none" if TEACHER is not None and TEACHER == PUBLISHED else "dataset"


def left() -> float:
    """Seconds until `on-device` ends this step."""
    return SECONDS - (time.monotonic() - BEGUN)


def end_in_order() -> None:
    """SIGTERM leaves `with` blocks in order: services are stopped and children ended."""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, leave)


def settings() -> Settings:
    """Everything is kept in one folder, for all steps and calls while the machine lasts."""
    return Settings(paths=Paths(root=WORK / "storage"), storage_url="", data_root=PROJECT, allow_import=frozenset())


def images() -> Path:
    """The folder of images, or the first of each class."""
    return ablation.take(IMAGES, TRAIN_IMAGES, TEST_IMAGES, WORK)


def study_of(arm: str, *, epochs: int, batch_size: int | None = None) -> Study:
    """The study of an arm of benchmarks/ablation.py, on these images, with this kit's teacher."""
    protocol = ablation.Protocol(
        data=IMAGES, teacher=TEACHER, teacher_normalize=TEACHER_NORMALIZE, images=TRAIN_IMAGES,
        test_images=TEST_IMAGES, epochs=epochs, width=WIDTH, layers_removed=LAYERS_REMOVED, seeds=1,
        batch_size=batch_size, ema_decay=0.999,
    )  # fmt: skip
    study = ablation.study_of(arm, protocol, images(), trainings=1)
    changes: dict[str, Any] = {"epochs": TEACHER_EPOCHS, "logits": LOGITS}
    return study.model_copy(
        update={
            "teacher": study.teacher.model_copy(update=changes),
            "augmentation": study.augmentation.model_copy(update={"crop_padding": CROP}),
            "attribution": study.attribution.model_copy(update={"n_steps": IG_STEPS}),
        }
    )


def needs() -> Study:
    """A study that wants all that any arm wants."""
    return study_of("kd_ig", epochs=1)


def device() -> torch.device:
    """The one device."""
    return torch.device(DEVICE)


def hardware() -> str:
    """For the figures."""
    name = torch.cuda.get_device_name(DEVICE) if DEVICE.startswith("cuda") else "CPU"
    return f"{name}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, commit {COMMIT}"


@contextmanager
def mps() -> Iterator[dict[str, str]]:
    """What the environment of this step's processes needs to share the GPU; nothing elsewhere than on a GPU."""
    with service() if DEVICE.startswith("cuda") else nullcontext({}) as variables:
        yield variables
