"""One of the trials that `probe` runs side by side: a real training that never ends, and says how fast it goes.

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
from typing import TYPE_CHECKING

import psutil

from igkd_hpo.config.reading import study_from_json
from igkd_hpo.distillation.device import CUDA_CONTEXT_BYTES
from igkd_hpo.errors import AssetMissing, IgkdError, UsageError, first_line
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.distillation.training import Training

_WARM_UP_STEPS = {"cpu": 2, "cuda": 30}  # a GPU is given work ahead of time until its queue is full
_LOOK_SECONDS = 0.005
_ENDLESS = 100_000  # epochs


@dataclass(frozen=True, kw_only=True)
class ContenderTask:
    """What one contender needs to know.

    Args:
        study: as JSON; its middle configuration is trained.
        device: cpu or cuda:N.
        threads: for torch.
    """

    study: str
    settings: Settings
    device: str
    threads: int


def find_devices(name: str, pipe: Connection) -> None:
    """Send the devices that workers with `--device NAME` are spread over: kind "devices" (names), or "error"."""
    import torch

    from igkd_hpo.distillation.device import choose_device

    with _telling_errors(pipe):
        first = choose_device(name)
        spread = name in {"auto", "cuda"} and first.type == "cuda"
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if spread else [str(first)]
        pipe.send({"kind": "devices", "names": names})


def contend(task: ContenderTask, pipe: Connection) -> None:
    """Train, and answer. Messages, told apart by `kind`:

    ready (once it runs steadily: batch, step_seconds, bytes: what it takes of the memory, free: what was there before),
    rate (images_per_second), out_of_memory, error (type, message). It hears "from" and "until", between which the rate
    is measured, and leaves when the pipe closes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _telling_errors(pipe):
        _contend(task, pipe)


@contextmanager
def _telling_errors(pipe: Connection) -> Iterator[None]:
    from igkd_hpo.distillation.memory import exhausted_memory

    try:
        yield
    except AssetMissing:
        error = UsageError(
            "--workers auto is measured with the study's own images, which are not ready here; run `igkd-hpo prepare` "
            "first, or give a number"
        )
        pipe.send(_told(error))
    except IgkdError as error:
        pipe.send(_told(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception as error:
        pipe.send({"kind": "out_of_memory"} if exhausted_memory(error) else _told(error))


def _told(error: Exception) -> dict[str, str]:
    kind = type(error).__name__ if isinstance(error, IgkdError) else "IgkdError"
    return {"kind": "error", "type": kind, "message": first_line(error)}


def _contend(task: ContenderTask, pipe: Connection) -> None:
    import torch

    from igkd_hpo.assets.host_memory import free_memory
    from igkd_hpo.assets.study_assets import open_assets
    from igkd_hpo.distillation.heap import keep_freed_memory
    from igkd_hpo.trial.build import make_trial

    torch.set_num_threads(task.threads)
    keep_freed_memory()
    device = torch.device(task.device)
    on_gpu = device.type == "cuda"

    def free() -> int:
        return int(torch.cuda.mem_get_info(device)[0]) if on_gpu else free_memory()

    before = free()  # a GPU's: with this process's context
    study = study_from_json(task.study, source="the study file")
    endless = study.model_copy(update={"training": study.training.model_copy(update={"epochs": _ENDLESS})})
    middle = study.hyperparameters.middle() | {"learning_rate": 1e-6}  # never diverges
    trial = make_trial(endless, middle, open_assets(study, task.settings), seed=0, device=device)
    pace = _Pace(trial.training)
    pace.wait_for(_WARM_UP_STEPS[device.type])
    batch = min(int(middle["batch_size"]), len(trial.training.data.images))
    own = before - free() + CUDA_CONTEXT_BYTES if on_gpu else int(psutil.Process().memory_full_info().uss)
    pipe.send(
        {
            "kind": "ready",
            "batch": batch,
            "step_seconds": 1 / pace.steps_per_second(),
            "bytes": own,
            "free": before + CUDA_CONTEXT_BYTES if on_gpu else before,
        }
    )
    while True:
        while not pipe.poll():
            pace.look()
        if pipe.recv() == "from":
            pace.begin()
        else:
            pipe.send({"kind": "rate", "images_per_second": batch * pace.steps_per_second()})


class _Pace:
    """A training in a thread of its own, and the steps that were seen to end: exact to the look, not to the step."""

    def __init__(self, training: "Training") -> None:
        self._training = training
        self._ended: list[Exception] = []
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()
        self.begin()

    def _train(self) -> None:
        try:
            for _ in self._training.epochs():
                pass
        except Exception as error:
            self._ended.append(error)

    def begin(self) -> None:
        """Forget what was seen."""
        self._seen: list[tuple[float, int]] = [(time.perf_counter(), self._training.steps_done)]
        self._seen_one = False

    def look(self) -> None:
        """Wait a moment, then see how far the training is. Raises what it raised."""
        import torch

        time.sleep(_LOOK_SECONDS)
        if self._ended:
            raise self._ended[0]
        done = self._training.steps_done
        if self._training.device.type == "cuda":
            torch.cuda.synchronize(self._training.device)  # a step is done for the host when it has been launched
        if done != self._seen[-1][1]:
            if not self._seen_one:  # the first one seen to end is where the clock starts
                self._seen, self._seen_one = [], True
            self._seen.append((time.perf_counter(), done))

    def wait_for(self, steps: int) -> None:
        """Until so many have ended, and one after them."""
        while self._training.steps_done < steps or len(self._seen) < 2 or not self._seen_one:
            self.look()

    def steps_per_second(self) -> float:
        """Between the first and the last step that were seen to end; waits for a second one."""
        while len(self._seen) < 2 or not self._seen_one:
            self.look()
        (first, from_step), (last, to_step) = self._seen[0], self._seen[-1]
        return (to_step - from_step) / (last - first)
