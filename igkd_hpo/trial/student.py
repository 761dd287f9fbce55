"""A student's network from its hyperparameters, and its cost before it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.cost import StudentCost, why_infeasible
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import ARCHITECTURES
from igkd_hpo.distillation.cost import count_macs, time_forward
from igkd_hpo.distillation.models import count_parameters


def make_body(architecture: str, hyperparameters: Mapping[str, Value], num_classes: int) -> nn.Module:
    """Build the network without its normalisation; its weights are drawn from torch's global generator."""
    chosen = ARCHITECTURES[architecture]
    knobs = {name: knob.declared.cast(hyperparameters[name]) for name, knob in chosen.knobs.items()}
    return chosen.build(num_classes=num_classes, **knobs)


def measure_student(
    study: Study,
    hyperparameters: Mapping[str, Value],
    num_classes: int,
    image_size: tuple[int, int],
    teacher_parameters: int | None,
) -> StudentCost:
    """Measure a student's cost on this machine: hundredths of a second to count, a third of one to time.

    Nothing is timed where the counts alone are beyond a limit of the study.
    """
    architecture = study.student.architecture
    with torch.random.fork_rng(devices=[]):  # the weights do not matter, the training's randomness does
        body = make_body(architecture, hyperparameters, num_classes)
    parameters = count_parameters(body)
    counted = StudentCost(
        parameters=parameters,
        compression_factor=round(teacher_parameters / parameters, 3) if teacher_parameters else None,
        macs=count_macs(body, image_size),
        size_kb=round(parameters * 4 / 1024, 1),
    )
    if why_infeasible(study.limits, counted) is not None:
        return counted
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
    """Violations of a study's limits on this machine, in words; None where there are none.

    Args:
        smallest: how the smallest student of the search space exceeds them: no configuration can be trained.
        controls: how the students of the controls exceed them, all of one size; they would not be trained.
        shrink: advice about the smallest.
        narrow: advice about the controls.
    """

    smallest: str | None
    controls: str | None
    shrink: str
    narrow: str


def check_fit(study: Study, *, num_classes: int, image_size: tuple[int, int]) -> Fit:
    """Compare the smallest student of the search space, and that of the controls, with the study's limits."""
    knobs = ARCHITECTURES[study.student.architecture].knobs
    smaller = " or ".join(f"{name} be {knob.to_shrink}" for name, knob in knobs.items())
    shrink = f"raise the limit, or let {smaller}" if knobs else "raise the limit"
    narrower = f"narrow {' and '.join(knobs)} so that the middle of their ranges is within the limits"
    advice = {"shrink": shrink, "narrow": narrower if knobs else "raise the limit"}
    if not study.limits.any:
        return Fit(smallest=None, controls=None, **advice)

    def explain(hyperparameters: Mapping[str, Value]) -> str | None:
        reason = why_infeasible(study.limits, measure_student(study, hyperparameters, num_classes, image_size, None))
        student = ", ".join(f"{name} {hyperparameters[name]:g}" for name in knobs) or study.student.architecture
        return reason and f"{reason} ({student})"

    smallest = explain(knobs_at_end(study, largest=False))
    controls = (make_control(name, study.hyperparameters).hyperparameters for name in study.controls[:1])
    return Fit(smallest=smallest, controls=next(map(explain, controls), None), **advice)


def knobs_at_end(study: Study, *, largest: bool) -> dict[str, Value]:
    """Return the knobs of the largest student of the search space, or of the smallest."""
    ends: dict[str, Value] = {}
    for name, knob in ARCHITECTURES[study.student.architecture].knobs.items():
        end = max if (knob.smallest == "high") != largest else min
        ends[name] = end(study.hyperparameters.corners(name))
    return ends
