"""How many trials side by side pay on each device, for `--workers auto`: found by running them.

The middle configuration is trained on the study's own images by 1, 2, 4, … processes at once, each as a trial process
is one, until twice as many are not worth it, or memory, cores or time end it. `measure_workers` asks a child for that,
for whoever calls it must stay light; the child forks its contenders from a server that imports torch.
"""

import json
import math
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from igkd_hpo import errors
from igkd_hpo.config.reading import study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.engines.local.preparation import worker_environment
from igkd_hpo.engines.local.probe_training import ContenderTask, contend, find_devices
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import Settings

WORTH = 1.05
"""Twice the trials must give this many times the images per second: fewer side by side leave the sampler more to
learn from before each of its choices."""
BUDGET_SECONDS = {"cpu": 12.0, "cuda": 45.0}
"""After which no further level begins; torch's import is not counted, but setting up CUDA for each trial is."""
SLOT_BYTES = 82 << 20
"""Of the host's memory: what a worker takes beside its trial process."""
FORK_SERVER_BYTES = 423 << 20
"""What the fork server takes, once for all workers. Both measured as unique set sizes, `digits`, CPU, torch 2.15."""

_USABLE = 0.9  # of what is free: other configurations are larger than the middle one
_STEPS = 6  # the time of so many steps is measured, within these bounds in seconds
_SHORTEST, _LONGEST = 1.0, 4.0
_PATIENCE = 120.0  # seconds for contenders to run steadily, or to answer


@dataclass(frozen=True, kw_only=True)
class Level:
    """So many trials side by side on one device, and the images per second that all of them together trained on."""

    trials: int
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was found.

    Args:
        devices: to spread workers over; the first one was measured.
        per_device: how many trials side by side pay on one.
        levels: what was measured.
        why: what ended it, in words.
        trial_bytes: what a trial takes of the device's memory; on a CPU of the host's, its worker included.
        free_bytes: of that memory, before.
    """

    devices: tuple[str, ...]
    per_device: int
    levels: tuple[Level, ...]
    why: str
    trial_bytes: int
    free_bytes: int

    @property
    def workers(self) -> int:
        """On all devices."""
        return self.per_device * len(self.devices)

    @property
    def gain(self) -> float:
        """How many times the images per second of one trial they reach together on one device."""
        chosen = next(level for level in self.levels if level.trials == self.per_device)
        return chosen.images_per_second / self.levels[0].images_per_second

    def __str__(self) -> str:
        """One line for people."""
        measured = ", ".join(f"{level.trials} trained {level.images_per_second:,.0f} images/s" for level in self.levels)
        each = f"{self.per_device} on each of {len(self.devices)} GPUs" if len(self.devices) > 1 else self.devices[0]
        return (
            f"workers: {self.workers} ({each}); measured side by side on {self.devices[0]}: {measured}; {self.why}; "
            f"a trial takes {_gib(self.trial_bytes)} of {_gib(self.free_bytes)}"
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Probe":
        """From what `asdict` made, through JSON."""
        levels = tuple(Level(**level) for level in fields["levels"])
        return cls(**fields | {"devices": tuple(fields["devices"]), "levels": levels})


class Field(Protocol):
    """A device, and what is known of it once a trial has run there."""

    trial_bytes: int
    free_bytes: int

    def measure(self, trials: int) -> float | None:
        """Images per second of so many together; None when their memory ran out."""
        ...


def measure_workers(study: Study, settings: Settings, *, device: str, stop: StopSignal) -> Probe | None:
    """Run the probe in a child; None when a signal came to us.

    Raises:
        UsageError: the device is not there, or the study's assets are not.
        IgkdError: what else keeps the study from being trained here.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "igkd_hpo.engines.local.probe", device],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment(settings),
    )
    text: str | None = study.model_dump_json()
    while True:
        try:
            output, _ = child.communicate(text, timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            text = None
            if stop.received is not None:
                child.send_signal(signal.SIGTERM)
    if stop.received is not None:
        return None
    if child.returncode != 0:
        raise IgkdError(f"--workers auto: the measuring ended with exit code {child.returncode}; give a number instead")
    answer = json.loads(output)
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return Probe.from_dict(answer)


def main() -> None:
    """The child: a study as JSON on standard input, a Probe or an error as JSON on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    study = study_from_json(sys.stdin.read(), source="the study file")
    try:
        answer = asdict(probe(study, Settings.resolve(), device=sys.argv[1]))
    except IgkdError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(answer))


def probe(study: Study, settings: Settings, *, device: str) -> Probe:
    """Measure, from a process that has not imported torch. Raises what keeps a contender from training."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # torch has its own setting
    multiprocessing.forkserver.set_forkserver_preload(["igkd_hpo.engines.local.trial_main"])
    asked = _Child(find_devices, device)
    devices = tuple(asked.hear("devices")["names"])
    asked.close()
    cores = len(os.sched_getaffinity(0))
    field = _Field(study.model_dump_json(), settings, devices[0], cores)
    try:
        return climb(field, devices, cores)
    finally:
        field.clear()


def climb(field: Field, devices: tuple[str, ...], cores: int) -> Probe:
    """Double the trials side by side on the first device as long as that pays, and is possible. Raises UsageError."""
    begun = time.monotonic()
    most = max(1, cores // len(devices))  # a trial on a GPU keeps a core busy too
    levels: list[Level] = []
    pays, trials = 0, 1
    while True:
        rate = field.measure(trials)
        if rate is None:
            why = f"{trials} ran out of memory"
            break
        levels.append(Level(trials=trials, images_per_second=rate))
        if pays and rate < WORTH * levels[-2].images_per_second:
            why = f"{trials} are not worth it"
            break
        pays = trials
        fitting = int(_USABLE * field.free_bytes // field.trial_bytes)
        if trials >= most:
            why = f"there are {cores} cores"
            break
        if trials >= fitting:
            why = "there is no memory for more"
            break
        if time.monotonic() - begun > BUDGET_SECONDS[devices[0].partition(":")[0]]:
            why = "more would have taken too long to measure"
            break
        trials = min(2 * trials, most, fitting)
    if not pays:
        raise errors.UsageError(
            "--workers auto: not even one trial fits into the memory here; lower batch_size or width"
        )
    return Probe(
        devices=devices,
        per_device=pays,
        levels=tuple(levels),
        why=why,
        trial_bytes=field.trial_bytes,
        free_bytes=field.free_bytes,
    )


class _Field:
    """The contenders that are running now, on one device."""

    def __init__(self, study: str, settings: Settings, device: str, cores: int) -> None:
        self._study, self._settings, self._device, self._cores = study, settings, device, cores
        self._running: list[_Child] = []
        self._step_seconds = 0.0
        self.trial_bytes = 0
        self.free_bytes = 0

    def measure(self, trials: int) -> float | None:
        if self._device == "cpu":
            self.clear()  # with more side by side, each has fewer threads
        threads = max(1, self._cores // trials)
        while len(self._running) < trials:
            task = ContenderTask(study=self._study, settings=self._settings, device=self._device, threads=threads)
            self._running.append(_Child(contend, task))
        try:
            for child in self._running:
                if not child.runs:
                    self._note(child.hear("ready"))
                    child.runs = True
            for child in self._running:
                child.pipe.send("from")
            time.sleep(min(max(_STEPS * self._step_seconds, _SHORTEST), _LONGEST))
            for child in self._running:
                child.pipe.send("until")
            return math.fsum(child.hear("rate")["images_per_second"] for child in self._running)
        except _OutOfMemory:
            return None

    def _note(self, ready: dict[str, Any]) -> None:
        self._step_seconds = ready["step_seconds"]
        if not self.trial_bytes:
            self.trial_bytes = ready["bytes"] + (SLOT_BYTES if self._device == "cpu" else 0)
            self.free_bytes = ready["free"] - (FORK_SERVER_BYTES if self._device == "cpu" else 0)

    def clear(self) -> None:
        """End all of them."""
        for child in self._running:
            child.close()
        self._running.clear()


class _OutOfMemory(Exception):
    pass


class _Child:
    """A process forked for one function, which gets our argument and a pipe."""

    def __init__(self, function: Callable[[Any, Connection], None], argument: object) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=function, args=(argument, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.runs = False

    def hear(self, kind: str) -> dict[str, Any]:
        """Its next message, which must be of this kind. Raises _OutOfMemory, or the error that it tells."""
        if not self.pipe.poll(_PATIENCE):
            raise IgkdError(f"--workers auto: a training said nothing for {_PATIENCE:g} s; give a number instead")
        try:
            message: dict[str, Any] = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(_PATIENCE)
            if self._process.exitcode == -signal.SIGKILL:  # the kernel's way when memory runs out
                raise _OutOfMemory from None
            raise IgkdError("--workers auto: a training ended by itself; give a number instead") from None
        if message["kind"] == "out_of_memory":
            raise _OutOfMemory
        if message["kind"] == "error":
            raise getattr(errors, message["type"])(message["message"])
        assert message["kind"] == kind
        return message

    def close(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


if __name__ == "__main__":
    main()
