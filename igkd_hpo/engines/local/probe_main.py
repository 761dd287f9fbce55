"""One of the trainings that the concurrency probe runs side by side: a real trial that never ends, and says how fast.

It runs in a process forked from a server that has imported torch; nothing here imports it before that.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

import psutil

from igkd_hpo.config.study import Study
from igkd_hpo.distillation.device import CUDA_CONTEXT_BYTES
from igkd_hpo.errors import AssetMissing, IgkdError, UsageError, first_line
from igkd_hpo.settings import Settings
from igkd_hpo.trial.messages import Message
from igkd_hpo.trial.task import TrialTask

if TYPE_CHECKING:
    from igkd_hpo.distillation.training import Training

_WARM_UP_STEPS = {"cpu": 2, "cuda": 30}  # a GPU is given work ahead of time until its queue is full
_LOOK_SECONDS = 0.005
_ENDLESS = 100_000  # epochs


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """A study whose middle configuration is trained, on cpu or cuda:N, with so many threads for torch."""

    study: Study
    settings: Settings
    device: str
    threads: int


class Devices(NamedTuple):
    """The devices that workers are spread over."""

    names: tuple[str, ...]


class Running(NamedTuple):
    """The training runs steadily: a step's time, and bytes of memory that it takes, and that were free before."""

    step_seconds: float
    bytes: int
    free: int


class Rate(NamedTuple):
    """The speed between "from" and "until"."""

    images_per_second: float


class NoMemory(NamedTuple):
    """The training does not fit into what is left."""


def find_devices(name: str, pipe: Connection) -> None:
    """Send the devices that workers with `--device NAME` are spread over, or an error."""
    import torch

    from igkd_hpo.distillation.device import choose_device

    with _sending_errors(pipe):
        first = choose_device(name)
        spread = name in {"auto", "cuda"} and first.type == "cuda"
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if spread else [str(first)]
        pipe.send(Devices(names=tuple(names)))


def train_until_told(task: ProbeTask, pipe: Connection) -> None:
    """Train, and send Running once the training is steady, then a Rate for each "from" and "until" that come.

    NoMemory or an error may come at any time. It leaves when the pipe closes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _sending_errors(pipe):
        _train(task, pipe)


@contextmanager
def _sending_errors(pipe: Connection) -> Iterator[None]:
    from igkd_hpo.distillation.memory import exhausted_memory

    try:
        yield
    except AssetMissing:
        pipe.send(
            UsageError(
                "--workers auto is measured with the study's own images, which are not ready here; run "
                "`igkd-hpo prepare` first, or give a number"
            )
        )
    except IgkdError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception as error:
        pipe.send(NoMemory() if exhausted_memory(error) else IgkdError(first_line(error)))


def _train(task: ProbeTask, pipe: Connection) -> None:
    import torch

    from igkd_hpo.assets.host_memory import free_memory
    from igkd_hpo.assets.study_assets import open_assets
    from igkd_hpo.distillation.heap import keep_freed_memory
    from igkd_hpo.trial.attempt import run_attempt

    torch.set_num_threads(task.threads)
    keep_freed_memory()
    device = torch.device(task.device)
    on_gpu = device.type == "cuda"

    def free() -> int:
        return int(torch.cuda.mem_get_info(device)[0]) if on_gpu else free_memory()

    before = free()  # a GPU's: with this process's context
    endless = task.study.model_copy(update={"training": task.study.training.model_copy(update={"epochs": _ENDLESS})})
    middle = task.study.hyperparameters.middle() | {"learning_rate": 1e-6}  # never diverges
    trial = TrialTask(study=endless, hyperparameters=middle, seed=0)
    assets = open_assets(task.study, task.settings)
    pace = _Pace()

    def train() -> None:
        try:
            run_attempt(trial, assets, pace, device=device)
        except Exception as error:
            pace.error = error

    threading.Thread(target=train, daemon=True).start()
    training = pace.wait_for(_WARM_UP_STEPS[device.type])
    batch = min(int(middle["batch_size"]), len(training.data.images))
    own = before - free() + CUDA_CONTEXT_BYTES if on_gpu else int(psutil.Process().memory_full_info().uss)
    steady = before + CUDA_CONTEXT_BYTES if on_gpu else before
    pipe.send(Running(step_seconds=1 / pace.steps_per_second(), bytes=own, free=steady))
    while True:
        while not pipe.poll():
            pace.look()
        if pipe.recv() == "from":
            pace.begin()
        else:
            pipe.send(Rate(images_per_second=batch * pace.steps_per_second()))


class _Pace:
    """Samples `steps_done` of a training in another thread; the resolution is the polling interval."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._training: Training | None = None
        self.begin()

    def report(self, message: Message) -> None:
        """Pass over what the trial says."""

    def watch(self, training: "Training") -> None:
        """Take the training before its first step."""
        self._training = training

    def begin(self) -> None:
        """Forget what was seen."""
        self._ends: list[tuple[float, int]] = []  # when a step was seen to end, and how many had by then
        self._last: int | None = None

    def look(self) -> None:
        """Wait a moment, then see how far the training is. Raises what it raised."""
        import torch

        time.sleep(_LOOK_SECONDS)
        if self.error is not None:
            raise self.error
        if (training := self._training) is None:
            return
        done = training.steps_done
        if training.device.type == "cuda":
            torch.cuda.synchronize(training.device)  # a step is done for the host when it has been launched
        if self._last is not None and done != self._last:
            self._ends.append((time.perf_counter(), done))
        self._last = done

    def wait_for(self, steps: int) -> "Training":
        """Return the training once so many steps have ended, and one after them. Raises what it raised."""
        while self._training is None or self._training.steps_done < steps or not self._ends:
            self.look()
        return self._training

    def steps_per_second(self) -> float:
        """Return the pace between the first and the last step seen to end; wait for a second one."""
        while len(self._ends) < 2:
            self.look()
        (first, from_step), (last, to_step) = self._ends[0], self._ends[-1]
        return (to_step - from_step) / (last - first)
