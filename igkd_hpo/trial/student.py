"""The student's network from its hyperparameters, and what it costs before it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.cost import StudentCost, why_infeasible
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.distillation.architectures import ARCHITECTURES
from igkd_hpo.distillation.cost import count_macs, time_forward
from igkd_hpo.distillation.models import count_parameters


def make_body(architecture: str, hyperparameters: Mapping[str, Value], num_classes: int) -> nn.Module:
    """The network without its normalisation; its weights are drawn from torch's global generator."""
    chosen = ARCHITECTURES[architecture]
    knobs = {name: knob.declared.cast(hyperparameters[name]) for name, knob in chosen.knobs.items()}
    return chosen.build(num_classes=num_classes, **knobs)


def measure_student(
    hyperparameters: Mapping[str, Value],
    *,
    architecture: str,
    num_classes: int,
    image_size: tuple[int, int],
    teacher_parameters: int | None,
    limits: Limits,
) -> StudentCost:
    """What the student costs here: a tenth of a second to count, a third to time.

    Nothing is timed where the counts alone are beyond a limit.
    """
    with torch.device("meta"):
        body = make_body(architecture, hyperparameters, num_classes)
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
        body = make_body(architecture, hyperparameters, num_classes)
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
        shrink: what to do about the smallest.
        narrow: what to do about the controls.
    """

    smallest: str | None
    controls: str | None
    shrink: str
    narrow: str


def check_fit(study: Study, *, num_classes: int, image_size: tuple[int, int]) -> Fit:
    """Set the smallest student of the search space, and that of the controls, against the study's limits."""
    knobs = ARCHITECTURES[study.student.architecture].knobs
    smaller = " or ".join(f"{name} be {knob.to_shrink}" for name, knob in knobs.items())
    shrink = f"raise the limit, or let {smaller}" if knobs else "raise the limit"
    narrower = f"narrow {' and '.join(knobs)} so that the middle of their ranges is within the limits"
    advice = {"shrink": shrink, "narrow": narrower if knobs else "raise the limit"}
    if not study.limits.any:
        return Fit(smallest=None, controls=None, **advice)

    def beyond(hyperparameters: Mapping[str, Value]) -> str | None:
        cost = measure_student(
            hyperparameters,
            architecture=study.student.architecture,
            num_classes=num_classes,
            image_size=image_size,
            teacher_parameters=None,
            limits=study.limits,
        )
        what = ", ".join(f"{name} {hyperparameters[name]:g}" for name in knobs) or study.student.architecture
        why = why_infeasible(study.limits, cost)
        return why and f"{why} ({what})"

    controls = (make_control(name, study.hyperparameters).hyperparameters for name in study.controls[:1])
    return Fit(
        smallest=beyond(knobs_at_end(study, largest=False)), controls=next(map(beyond, controls), None), **advice
    )


def knobs_at_end(study: Study, *, largest: bool) -> dict[str, Value]:
    """The knobs of the largest student of the search space, or of the smallest."""
    ends: dict[str, Value] = {}
    for name, knob in ARCHITECTURES[study.student.architecture].knobs.items():
        end = max if (knob.smallest == "high") != largest else min
        ends[name] = end(study.hyperparameters.corners(name))
    return ends
