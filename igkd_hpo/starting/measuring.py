"""What networks cost on this machine: counted, and timed in training steps, in forked processes that they may end."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from igkd_hpo.assets.progress import Progress
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.engines.local.child import Child, keep_quiet
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.errors import IgkdError, UsageError, first_line
from igkd_hpo.starting.networks import Machine, Network, StepTime, Survey

_PATIENCE_SECONDS = 300.0  # of a process, which imports a library or two and takes some steps
_LOOK_SECONDS = 1.0  # how often to see that the server still runs
_STEPS = {"cpu": 2, "cuda": 20}  # in each of two epochs, of which the second is timed
_FEWEST_IMAGES = 16  # in a step
_LARGE_STEP = 1e9  # multiply-adds, from which a CPU's time for a step is in proportion to its images

_Argument = TypeVar("_Argument")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, kw_only=True)
class SurveyTask:
    """Networks whose cost is to be counted, for a study's limits and so many classes, and weights to be looked for."""

    study: Study
    num_classes: int
    networks: tuple[Network, ...]
    wanted_weights: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TimingTask:
    """A network whose training steps are to be timed, as this study trains.

    Args:
        macs: of the network, for an image.
        device: auto, cpu, cuda or cuda:N.
    """

    study: Study
    num_classes: int
    network: Network
    macs: int
    device: str


class Measuring:
    """Measurements in processes of their own, which share a server; `close` ends that."""

    def __init__(self) -> None:
        self._server = ForkServer()

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def machine(self, device: str) -> Machine:
        """Return this machine, with the device that a name means. Raises UsageError where there is none such."""
        return self._ask(describe_machine, device)

    def look_up(self, architecture: str) -> None:
        """Raise UsageError where its library has no network of this name, with the near ones, or is not here."""
        self._ask(find_network, architecture)

    def survey(self, task: SurveyTask) -> Survey:
        """Count the costs of networks; those that cannot be built here are left out. Raises IgkdError."""
        return self._ask(count_costs, task)

    def time(self, tasks: Sequence[TimingTask], progress: Progress) -> dict[Network, StepTime]:
        """Time the steps of networks; one whose process does not come to its end is left out, and told of."""
        found = {}
        with progress.task("timing training steps", len(tasks)) as advance:
            for task in tasks:
                try:
                    found[task.network] = self._ask(time_steps, task)
                except IgkdError as error:
                    progress.note(f"{task.network.shown} is left out: {error}")
                advance(1)
        return found

    def _ask(self, function: Callable[[_Argument], _Answer], argument: _Argument) -> _Answer:
        """Return what a function returns in a process of its own; the networks are others' code, which may end it."""
        with closing(Child(self._server, _answer, (function, argument))) as child:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            answer: Any = None
            while answer is None and not child.ended and time.monotonic() < deadline:
                wait(child.waitables(), _LOOK_SECONDS)
                answer = next(child.messages(), answer)
        if isinstance(answer, IgkdError):
            raise answer
        if answer is None:
            end = "did not come to an end" if child.exit_code is None else f"ended with exit code {child.exit_code}"
            raise IgkdError(f"a process that measures networks {end}; run again, or write the study file by hand")
        return cast("_Answer", answer)


def _answer(asked: tuple[Callable[[Any], Any], Any], pipe: Connection) -> None:
    keep_quiet()
    function, argument = asked
    try:
        pipe.send(function(argument))
    except IgkdError as error:
        pipe.send(error)
    except Exception as error:  # of libraries' code: anything
        pipe.send(IgkdError(f"a measurement ended with {type(error).__name__}: {first_line(error)}"))


def describe_machine(device: str) -> Machine:
    """Return this machine. Imports torch. Raises UsageError where it has no such device."""
    import torch

    from igkd_hpo.assets.host_memory import free_memory
    from igkd_hpo.distillation.device import choose_device

    chosen, cores = choose_device(device), len(os.sched_getaffinity(0))
    load = os.getloadavg()[0] / (os.cpu_count() or cores)
    if chosen.type == "cpu":
        return Machine(device="cpu", cores=cores, free_bytes=free_memory(), load=load)
    free = torch.cuda.mem_get_info(chosen)[0]
    return Machine(device=torch.cuda.get_device_name(chosen), cores=cores, free_bytes=free, load=load)


def find_network(architecture: str) -> bool:
    """Return that a library has a network of this name. Imports it. Raises UsageError where it has none."""
    look_up = find_architecture(architecture).look_up
    if look_up is not None:
        look_up(Request(name=architecture, num_classes=2, image_size=(32, 32)))
    return True


def count_costs(task: SurveyTask) -> Survey:
    """Count what networks cost, and look for weights. Imports torch, and the networks' libraries."""
    from igkd_hpo.distillation.recipe import plain_values
    from igkd_hpo.starting.weights import find_weights
    from igkd_hpo.trial.student import measure_student

    costs = {}
    # Only what is limited needs to be timed, and a limit of nothing keeps the rest from it.
    study = task.study
    if study.limits.latency_ms is None:
        study = study.model_copy(update={"limits": study.limits.model_copy(update={"parameters": 1})})
    for network in task.networks:
        values = {**plain_values(), "architecture": network.architecture, **dict(network.knobs)}
        size = (network.side, network.side)
        with suppress(UsageError):  # its library is not here
            costs[network] = measure_student(study, values, task.num_classes, size, None, allow_import=frozenset())
    places = {name: find_weights(name) for name in task.wanted_weights}
    return Survey(costs=costs, weights={name: place for name, place in places.items() if place is not None})


def time_steps(task: TimingTask) -> StepTime:
    """Time training steps and forward passes of a network on images that show nothing. Imports torch."""
    import torch

    from igkd_hpo.config.resolution import training_on
    from igkd_hpo.distillation.batches import TrainingData
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.evaluation import evaluating
    from igkd_hpo.distillation.execution import resolve_precision
    from igkd_hpo.distillation.models import Network as Normalised
    from igkd_hpo.distillation.models import to_pixels
    from igkd_hpo.distillation.recipe import make_recipe
    from igkd_hpo.distillation.threads import torch_threads
    from igkd_hpo.distillation.training import Training
    from igkd_hpo.trial.student import make_body

    study, device, network = task.study, choose_device(task.device), task.network
    batch = int(study.hyperparameters.highest("batch_size"))
    if device.type == "cpu":
        batch = min(batch, max(_FEWEST_IMAGES, int(_LARGE_STEP / task.macs)))
    n_images, size = batch * _STEPS[device.type], (network.side, network.side)
    values = {
        **study.hyperparameters.middle(),
        "architecture": network.architecture,
        **dict(network.knobs),
        "alpha": 0.0,
        "batch_size": batch,
        "learning_rate": 1e-6,  # at which nothing diverges
        "init": "random",
        "class_weights": "none",
    }
    body = make_body(values, task.num_classes, size, frozenset())
    model = Normalised(body, (0.5,) * 3, (0.25,) * 3).to(device).to(memory_format=torch.channels_last)
    model.memory_format = torch.channels_last
    images = torch.randint(0, 256, (n_images, 3, *size), dtype=torch.uint8).to(device)
    labels = torch.arange(n_images, device=device) % task.num_classes
    data = TrainingData(
        images=images,
        labels=labels,
        maps=torch.rand(n_images, *size, device=device),
        validation_images=images[:2],
        validation_labels=labels[:2],
        digests=torch.arange(n_images),
    )
    training = training_on(study, device.type)
    settings = {
        **training.model_dump(),
        **dict(study.augmentation),
        **values,
        "epochs": 2,
        "precision": resolve_precision(training.precision, device),
        "channels_last": True,
        "compile": "none",
        "seed": 0,
    }
    steps = Training(model, data, make_recipe(settings), device=device, teaching=None, teacher=None)

    def forward() -> float:
        begun = time.perf_counter()
        model(to_pixels(images[:batch], torch.channels_last))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    with torch_threads(len(os.sched_getaffinity(0))):
        epoch_seconds = [epoch.seconds for epoch in steps.epochs()]
        with evaluating(model):
            passes = [forward() for _ in range(3)]
    return StepTime(epoch_seconds[-1] / n_images, min(passes) / batch)


def with_times(survey: Survey, times: dict[Network, StepTime]) -> Survey:
    """Return what is known of networks, and these times."""
    return replace(survey, times={**survey.times, **times})
