"""The student's network from its hyperparameters, and what it costs before it is trained."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.cost import StudentCost, why_infeasible
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.space import Choices, FloatRange, IntRange, Number, Value
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.distillation.cost import count_macs, time_forward
from igkd_hpo.distillation.models import count_parameters, mobilenet_v2


def make_body(hyperparameters: dict[str, Value], num_classes: int) -> nn.Module:
    """The network without its normalisation; its weights are drawn from torch's global generator."""
    return mobilenet_v2(
        num_classes=num_classes,
        width=float(hyperparameters["width"]),
        layers_removed=int(hyperparameters["layers_removed"]),
    )


def measure_student(
    hyperparameters: dict[str, Value],
    *,
    num_classes: int,
    image_size: tuple[int, int],
    teacher_parameters: int | None,
    limits: Limits,
) -> StudentCost:
    """What the student costs here: a tenth of a second to count, a third to time.

    Nothing is timed where the counts alone are beyond a limit.
    """
    with torch.device("meta"):
        body = make_body(hyperparameters, num_classes)
    parameters = count_parameters(body)
    counted = StudentCost(
        parameters=parameters,
        compression_factor=round(teacher_parameters / parameters, 3) if teacher_parameters else None,
        macs=count_macs(body, image_size),
        size_kb=round(parameters * 4 / 1024, 1),
    )
    if why_infeasible(limits, counted) is not None:
        return counted
    with torch.random.fork_rng(devices=[]):  # the weights do not matter, the training's randomness does
        body = make_body(hyperparameters, num_classes)
    latency = time_forward(body, image_size)
    return replace(
        counted,
        latency_ms=round(latency.median, 3),
        latency_ms_p95=round(latency.p95, 3),
        latency_of=(
            f"1 image of {image_size[1]}x{image_size[0]}, torch {torch.__version__}, float32, 1 CPU thread, "
            f"{latency.calls} runs after {latency.warm_up}"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What of a study is beyond its limits on this machine, in words; None where nothing is.

    Args:
        smallest: how the smallest student of the search space exceeds them: no configuration can be trained.
        controls: how the students of the controls do, all of which have one size; they would not be trained.
    """

    smallest: str | None
    controls: str | None


def check_fit(study: Study, *, num_classes: int, image_size: tuple[int, int]) -> Fit:
    """Set the smallest student of the search space, and that of the controls, against the study's limits."""
    if not study.limits.any:
        return Fit(smallest=None, controls=None)

    def beyond(hyperparameters: dict[str, Value]) -> str | None:
        cost = measure_student(
            hyperparameters,
            num_classes=num_classes,
            image_size=image_size,
            teacher_parameters=None,
            limits=study.limits,
        )
        what = f"layers_removed {hyperparameters['layers_removed']}, width {hyperparameters['width']:g}"
        why = why_infeasible(study.limits, cost)
        return why and f"{why} ({what})"

    controls = (make_control(name, study.hyperparameters).hyperparameters for name in study.controls[:1])
    return Fit(smallest=beyond(_smallest(study.hyperparameters)), controls=next(map(beyond, controls), None))


def _smallest(settings: Hyperparameters) -> dict[str, Value]:
    """Every cost falls with more blocks cut and with fewer channels."""
    return {"layers_removed": max(_ends(settings.layers_removed)), "width": min(_ends(settings.width))}


def _ends(setting: Number | FloatRange | IntRange | Choices) -> tuple[Number, ...]:
    return setting.corners() if isinstance(setting, FloatRange | IntRange | Choices) else (setting,)
