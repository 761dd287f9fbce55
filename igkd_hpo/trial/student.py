"""A student's network from its hyperparameters, and its cost before it is trained."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from igkd_hpo.assets.teacher_network import torch_format
from igkd_hpo.config.controls import make_control
from igkd_hpo.config.cost import StudentCost, why_infeasible
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.distillation.cost import count_macs, time_forward
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.distillation.peak_memory import count_peak_activations
from igkd_hpo.distillation.recipe import knobs_of
from igkd_hpo.distillation.reparameterization import AS_THEY_ARE, merged, reparameterize
from igkd_hpo.distillation.sparsity import prune
from igkd_hpo.errors import UsageError


def make_body(
    hyperparameters: Mapping[str, Value], num_classes: int, image_size: tuple[int, int], allow_import: frozenset[str]
) -> nn.Module:
    """Build the network without its normalisation; its weights are drawn from torch's global generator.

    Args:
        hyperparameters: the architecture's name and its knobs; others do not matter.
        allow_import: modules of people's own code that this machine trusts.

    Raises:
        UsageError: there is no such network, it cannot be had in this form, or its code is not trusted.
    """
    name = str(hyperparameters["architecture"])
    request = Request(name=name, num_classes=num_classes, image_size=image_size, allow_import=allow_import)
    return find_architecture(name).build(request, **knobs_of(hyperparameters))


def deployed(body: nn.Module, architecture: str) -> nn.Module:
    """Return the form of a student's body that is shipped, for evaluation: itself, or a copy with merged branches.

    What was learned in place of plain weights is merged first, so that the form is that of a student without it.
    """
    deploy, plain = find_architecture(architecture).deploy, merged(body)
    return (plain if deploy is None else deploy(plain.eval())).eval()


def count_pruned(body: nn.Module, architecture: str, sparsity: float) -> int:
    """Return how many weights `sparsity` sets to 0 in the form that is shipped; prunes a body of plain weights for it.

    Raises UsageError where layers are merged with others when the network is shipped, and so are no longer 0.
    """
    reparameterize(body, {**AS_THEY_ARE, "sparsity": sparsity, "architecture": architecture})
    prune(body, sparsity)
    pruned, left = _count_zeros(merged(body)), _count_zeros(deployed(body, architecture))
    if left < pruned:
        raise UsageError(
            f"sparsity is {sparsity:g}, and {architecture} is shipped with layers that are merged of several, in which "
            f"{left:,} of {pruned:,} pruned weights are still 0; write sparsity: 0"
        )
    return pruned


def _count_zeros(body: nn.Module) -> int:
    layers = (layer for layer in body.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    return sum(int((layer.weight == 0).sum()) for layer in layers)


def measure_student(
    study: Study,
    hyperparameters: Mapping[str, Value],
    num_classes: int,
    image_size: tuple[int, int],
    teacher_parameters: int | None,
    *,
    allow_import: frozenset[str],
    memory_format: MemoryFormat = "channels_last",
) -> StudentCost:
    """Measure the cost of the form that is shipped, on this machine: hundredths of a second to count, a third to time.

    Nothing is timed where the counts alone are beyond a limit of the study.

    Args:
        hyperparameters: the architecture's name, its knobs, and `sparsity` where that is above 0.
        memory_format: in which it can be run, see `known_step`.

    Raises:
        UsageError: what `make_body` and `count_pruned` raise.
    """
    with torch.random.fork_rng(devices=[]):  # the weights do not matter, the training's randomness does
        body = make_body(hyperparameters, num_classes, image_size, allow_import)
    name, sparsity = str(hyperparameters["architecture"]), float(hyperparameters.get("sparsity", 0.0))
    pruned = count_pruned(body, name, sparsity) if sparsity > 0 else None
    body = deployed(body, name)
    parameters = count_parameters(body)
    counted = StudentCost(
        parameters=parameters,
        compression_factor=round(teacher_parameters / parameters, 3) if teacher_parameters else None,
        macs=count_macs(body, image_size),
        size_kb=_size_kb(parameters),
        peak_ram_kb=_peak_ram_kb(body, image_size),
        nonzero_parameters=None if pruned is None else parameters - pruned,
    )
    if why_infeasible(study.limits, counted) is not None:
        return counted
    latency = time_forward(body, image_size, torch_format(memory_format))
    return replace(
        counted,
        latency_ms=round(latency.median, 3),
        latency_ms_p95=round(latency.p95, 3),
        latency_of=(
            f"1 image of {image_size[1]}x{image_size[0]}, torch {torch.__version__}, float32, 1 CPU thread, "
            f"{latency.calls} runs after {latency.warm_up}"
        ),
    )


def count_cost(
    cost: str,
    hyperparameters: Mapping[str, Value],
    num_classes: int,
    image_size: tuple[int, int],
    *,
    allow_import: frozenset[str],
) -> float:
    """Count one cost alone, as `measure_student` does: parameters, macs, size_kb or peak_ram_kb."""
    with torch.random.fork_rng(devices=[]):
        body = make_body(hyperparameters, num_classes, image_size, allow_import)
    body = deployed(body, str(hyperparameters["architecture"]))
    match cost:
        case "macs":
            return count_macs(body, image_size)
        case "peak_ram_kb":
            return _peak_ram_kb(body, image_size)
        case "size_kb":
            return _size_kb(count_parameters(body))
    return count_parameters(body)


def _size_kb(parameters: int) -> float:
    return round(parameters * 4 / 1024, 1)


def _peak_ram_kb(body: nn.Module, image_size: tuple[int, int]) -> float:
    return round(count_peak_activations(body, image_size) / 1024, 1)


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


def check_fit(
    study: Study,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    allow_import: frozenset[str],
    contiguous: Collection[str] = (),
) -> Fit:
    """Compare the smallest student of the search space, and that of the controls, with the study's limits.

    Of several architectures one that keeps them is enough; else the one with the fewest parameters is told of.

    Args:
        contiguous: architectures that run in no other layout of memory.
    """
    ends = students_at_end(study, largest=False)
    names = study.hyperparameters.words("architecture")
    knobs = {key: knob for name in names for key, knob in find_architecture(name).knobs_of(name).items()}
    others = ["take a smaller architecture"] if len(ends) > 1 else []
    smaller = [" or ".join(f"{name} be {knob.to_shrink}" for name, knob in knobs.items())] if knobs else []
    shrink = ", ".join(["raise the limit", *others, *(f"or let {words}" for words in smaller)])
    narrower = f"narrow {' and '.join(knobs)} so that the middle of their ranges is within the limits"
    advice = {"shrink": shrink, "narrow": narrower if knobs else "raise the limit"}
    if not study.limits.any:
        return Fit(smallest=None, controls=None, **advice)

    def explain(hyperparameters: Mapping[str, Value]) -> tuple[int, str | None]:
        name = str(hyperparameters["architecture"])
        layout: MemoryFormat = "contiguous" if name in contiguous else "channels_last"
        cost = measure_student(
            study, hyperparameters, num_classes, image_size, None, allow_import=allow_import, memory_format=layout
        )
        reason = why_infeasible(study.limits, cost)
        told = [f"{knob} {hyperparameters[knob]:g}" for knob in find_architecture(name).knobs_of(name)]
        student = ", ".join([*([name] if len(ends) > 1 or not told else []), *told])
        return cost.parameters, reason and f"{reason} ({student})"

    found = sorted(map(explain, ends), key=lambda one: (one[1] is not None, one[0]))
    controls = (make_control(name, study.hyperparameters).hyperparameters for name in study.controls[:1])
    return Fit(smallest=found[0][1], controls=next((explain(values)[1] for values in controls), None), **advice)


def students_at_end(study: Study, *, largest: bool) -> list[dict[str, Value]]:
    """Return architecture and knobs of the largest student of each architecture searched, or of the smallest."""
    students = []
    for architecture in study.hyperparameters.words("architecture"):
        ends: dict[str, Value] = {"architecture": architecture}
        for name, knob in find_architecture(architecture).knobs.items():
            end = max if (knob.smallest == "high") != largest else min
            ends[name] = end(study.hyperparameters.corners(name))
        students.append(ends)
    return students
