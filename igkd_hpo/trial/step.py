"""A few training steps that are tried before hours are spent on networks that others wrote, and what was found.

They run in whatever process calls `take_steps`, which such a network may end; what was found is kept as an asset.
"""

import gc
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor, nn

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.layout import teacher_layout
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.shown import open_images
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import student_request
from igkd_hpo.assets.teacher_check import NO_PROBABILITY, TOLERANCE
from igkd_hpo.assets.teacher_network import build_body, teacher_request, torch_format
from igkd_hpo.config.controls import make_control
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.config.resolution import training_on
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.device import choose_device, processor
from igkd_hpo.distillation.evaluation import evaluating
from igkd_hpo.distillation.execution import resolve_precision
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.memory import exhausted_memory
from igkd_hpo.distillation.models import Network, Resized, to_pixels
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, make_recipe, weights
from igkd_hpo.distillation.reparameterization import AS_THEY_ARE, reparameterize
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.errors import AssetMissing, IgkdError, UsageError, first_line
from igkd_hpo.settings import Settings
from igkd_hpo.trial.student import count_pruned, deployed, make_body, students_at_end

_SCHEMA = 1
_KIND: Final = "step"
# Where a kernel writes beyond its memory, that is seen by chance: of 12 processes all ended by three steps of 2 images,
# of one step of 4 images 2 of 3 did not.
_IMAGES, _BATCH = 6, 2
_NO_SECOND = re.compile(r"derivative for aten::_*(\w+?)(?:_backward)* is not implemented")


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """Students of one architecture, the smallest and the largest of a study, to be tried in a layout of memory.

    Args:
        device: cpu or cuda:N.
    """

    study: Study
    settings: Settings
    device: str
    architecture: str
    memory_format: MemoryFormat = "channels_last"

    @property
    def called(self) -> str:
        """Return what people call it."""
        return self.architecture


@dataclass(frozen=True, kw_only=True)
class Step:
    """Steps that were made.

    Args:
        memory_format: in which they can be made.
        seconds: of one, of 2 images.
        why: what happened in the other layout, in words; None where that was not tried.
        smallest_side: pixels of the smallest maps that it makes of an image; None without convolutions.
    """

    memory_format: MemoryFormat
    seconds: float
    why: str | None = None
    smallest_side: int | None = None


class StepFailed(Exception):
    """The error of a step that another layout of memory may mend; says in words what happened."""


def known_step(
    study: Study, architecture: str, dataset: Dataset, settings: Settings, device: torch.device
) -> Step | None:
    """Return what was found of an architecture on this kind of machine; None where it was not tried, or need not be."""
    if not find_architecture(architecture).foreign:
        return None
    try:
        asset = AssetStore(settings.paths.assets).open(_KIND, _inputs(study, architecture, dataset, settings, device))
    except AssetMissing:
        return None
    return Step(**asset.facts)


def keep_step(
    step: Step, study: Study, architecture: str, dataset: Dataset, settings: Settings, device: torch.device
) -> None:
    """Keep what was found, for `known_step`. Raises AssetError where it cannot be written."""
    inputs = _inputs(study, architecture, dataset, settings, device)
    with AssetStore(settings.paths.assets).build(_KIND, inputs, SilentProgress()) as draft:
        if draft.finished is None:
            draft.commit(asdict(step))


def memory_format(
    study: Study, architecture: str, dataset: Dataset, settings: Settings, device: torch.device
) -> MemoryFormat:
    """Return the layout of memory in which an architecture is trained and run: channels_last unless it cannot be."""
    step = known_step(study, architecture, dataset, settings, device)
    return "channels_last" if step is None else step.memory_format


def contiguous_alone(study: Study, dataset: Dataset, settings: Settings, device: torch.device) -> frozenset[str]:
    """Return the architectures of a study that are known to run in contiguous memory alone."""
    names = study.hyperparameters.words("architecture")
    return frozenset(n for n in names if memory_format(study, n, dataset, settings, device) == "contiguous")


def _inputs(
    study: Study, architecture: str, dataset: Dataset, settings: Settings, device: torch.device
) -> Mapping[str, Any]:
    """Return all that can change what is found."""
    version = find_architecture(architecture).version
    values = _worst_values(study)
    return {
        "schema": _SCHEMA,
        "architecture": architecture,
        "code": version and version(student_request(architecture, dataset, settings)),
        "students": _ends(study, architecture),
        "classes": dataset.num_classes,
        "image_size": list(dataset.image_size),
        "terms": sorted(name for role in (Role.MAPS, Role.FEATURES) for name in weights(role) if values[name]),
        "teacher": study.teacher.architecture if study.uses(Role.FEATURES) else None,
        "precision": training_on(study, device.type).precision,
        "torch": torch.__version__,
        "device": device.type,
        "processor": processor(device),
        **({"weights": learned} if (learned := _learned(study)) else {}),
    }


def _learned(study: Study) -> dict[str, Any]:
    """Return what a study can have learned in place of weights, at its worst; nothing where that is weights alone."""
    space = study.hyperparameters
    worst: dict[str, Any] = {"overparameterize": sorted(space.words("overparameterize"))}
    worst |= {name: space.highest(name) for name in ("powerprop_alpha", "sparsity")}
    plain = {**AS_THEY_ARE, "overparameterize": ["none"]}
    return {name: value for name, value in worst.items() if value != plain[name]}


def _ends(study: Study, architecture: str) -> list[dict[str, Value]]:
    ends = [*students_at_end(study, largest=False), *students_at_end(study, largest=True)]
    return [
        values for n, values in enumerate(ends) if values["architecture"] == architecture and values not in ends[:n]
    ]


def _worst_values(study: Study) -> dict[str, Value]:
    """Return hyperparameters with every term that a trial of the study can have, but for what every network can do."""
    values = study.hyperparameters.middle()
    controls = [make_control(name, study.hyperparameters).hyperparameters for name in study.controls]
    for name, declared in HYPERPARAMETERS.items():
        if declared.is_weight or name == "ema_decay":
            values[name] = max([study.hyperparameters.highest(name), *(float(each[name]) for each in controls)])
    plain: dict[str, Value] = {"alpha": 0.0, "alignment": "aligned", "init": "random", "cutout": 0}
    values |= {name: study.hyperparameters.highest(name) for name in ("powerprop_alpha", "sparsity")}
    return {**values, **plain, "learning_rate": 1e-6, "batch_size": _BATCH}  # a rate at which nothing diverges


def take_steps(task: StepTask) -> Step:
    """Build the students, evaluate each once, and take training steps with all terms of the study.

    Raises:
        UsageError: it cannot be a student of this study, whatever the layout of memory.
        IgkdError: memory ran out.
        StepFailed: it raised something else.
    """
    study, device = task.study, choose_device(task.device)
    dataset = open_images(study, AssetStore(task.settings.paths.assets))
    seconds, side = 0.0, None
    ways = study.hyperparameters.words("overparameterize")
    for values, how in product(_ends(study, task.architecture), ways):
        worst = {**_worst_values(study), **values, "overparameterize": how}
        try:
            taken, side = _try_student(task, worst, dataset, device)
        except IgkdError:
            raise
        except NonFiniteLoss:
            raise UsageError(
                f"the logits of {task.architecture} are not finite after steps of a rate of 1e-6; {_remedy(study)}"
            ) from None
        except Exception as error:  # of people's and libraries' code: anything
            raise _explained(error, task, dataset) from error
        seconds = max(seconds, taken)
    gc.collect()  # memory that is not whole any more is noticed when it is given back
    return Step(memory_format=task.memory_format, seconds=round(seconds, 3), smallest_side=side)


def _remedy(study: Study) -> str:
    several = len(study.hyperparameters.words("architecture")) > 1
    return "leave it out of hyperparameters.architecture" if several else "take another network"


def _explained(error: Exception, task: StepTask, dataset: Dataset) -> Exception:
    name, (height, width) = task.architecture, dataset.image_size
    missing = _NO_SECOND.search(str(error))
    if missing and _worst_values(task.study)["attribution_weight"]:
        return UsageError(
            f"{name} has no second derivative ({missing[1]}), and attribution_weight above 0 needs one; "
            f"write attribution_weight: 0, or {_remedy(task.study)}"
        )
    if (whose := exhausted_memory(error)) is not None:
        return IgkdError(
            f"the memory of the {whose} is too small for a step of {name} with {_BATCH} images of {height}x{width}; "
            f"free some, lower dataset.image_size, or {_remedy(task.study)}"
        )
    return StepFailed(f"raises {type(error).__name__}: {first_line(error)}")


def describe_failure(task: StepTask, what: str, dataset: Dataset) -> UsageError:
    """Return the error of an architecture whose step fails in every layout of memory."""
    height, width = dataset.image_size
    mend = "mend that code, or " if ":" in task.architecture else ""
    if "size" in what.lower() and "channel" not in what:  # as most layers say of an input that is too small
        mend = f"give it larger images, {mend or 'or '}"
    return UsageError(
        f"{task.architecture} {what} in a training step with {_BATCH} images of {height}x{width}; "
        f"{mend}{_remedy(task.study)}"
    )


def _try_student(
    task: StepTask, values: Mapping[str, Value], dataset: Dataset, device: torch.device
) -> tuple[float, int | None]:
    """Return the seconds of a step, and the smallest side of a student's maps."""
    study, layout = task.study, torch_format(task.memory_format)
    body = make_body(values, dataset.num_classes, dataset.image_size, task.settings.allow_import)
    again = make_body(values, dataset.num_classes, dataset.image_size, task.settings.allow_import)
    if not {id(part) for part in body.parameters()}.isdisjoint(map(id, again.parameters())):
        raise UsageError(
            f"{task.architecture} returns the same network each time, which would go on from one trial to the next; "
            "make a new one in that function"
        )
    if (sparsity := float(values["sparsity"])) > 0:
        count_pruned(again, task.architecture, sparsity)
    reparameterize(body, values)
    network = Network(body, dataset.mean, dataset.std).to(device).to(memory_format=layout)
    network.memory_format = layout
    images = dataset.train_images[:_IMAGES].to(device)
    side = _check_output(network, to_pixels(images[:_BATCH], layout), task, dataset.num_classes)
    data = TrainingData(
        images=images,
        labels=dataset.train_labels[:_IMAGES].to(device),
        maps=torch.rand(len(images), *dataset.image_size, device=device),
        validation_images=images[:_BATCH],
        validation_labels=dataset.train_labels[:_BATCH].to(device),
        digests=dataset.digests[:_IMAGES],
    )
    begun = time.perf_counter()
    _train(network, data, task, values, device)
    seconds = (time.perf_counter() - begun) / (_IMAGES // _BATCH)
    if study.uses(Role.FEATURES):
        few: dict[str, Any] = {name: part[:_BATCH] for name, part in vars(data).items() if isinstance(part, Tensor)}
        teacher = _untrained_teacher(task, dataset, device)
        try:
            _train(network, TrainingData(**few), task, values, device, teacher)  # who answers for 64 images at once
        except UsageError as error:
            raise UsageError(f"student {task.architecture}: {error}") from error
    unused = make_body(values, dataset.num_classes, dataset.image_size, task.settings.allow_import)
    reparameterize(unused, values)  # a bundle is made of a body that was built anew, not of one that was trained
    shipped = deployed(unused, task.architecture).to(memory_format=layout)
    with evaluating(shipped):
        shipped(to_pixels(dataset.train_images[:1], layout))
    return seconds, side


def _train(
    network: Network,
    data: TrainingData,
    task: StepTask,
    values: Mapping[str, Value],
    device: torch.device,
    teacher: Network | None = None,
) -> None:
    """Train for an epoch; terms on features are left out without a teacher."""
    training = training_on(task.study, device.type)
    without = {} if teacher is not None else dict.fromkeys(weights(Role.FEATURES), 0.0)
    settings = {
        **training.model_dump(),
        **dict(task.study.augmentation),
        **values,
        **without,
        "epochs": 1,
        "precision": resolve_precision(training.precision, device),
        "channels_last": task.memory_format == "channels_last",
        "compile": "none",
        "seed": 0,
    }
    steps = Training(network, data, make_recipe(settings), device=device, teaching=None, teacher=teacher)
    list(steps.epochs())


def _untrained_teacher(task: StepTask, dataset: Dataset, device: torch.device) -> Network:
    """Build the teacher with random weights, which give features of the same sizes, at no cost."""
    teacher = task.study.teacher.model_copy(update={"weights": "random", "checkpoint": None})  # as if trained here
    request = teacher_request(teacher, dataset.num_classes, dataset.image_size, task.settings)
    body, _ = build_body(teacher, request)
    if teacher.input_size is not None:
        body = Resized(body, teacher.input_size)
    network = Network(body, dataset.mean, dataset.std).eval().requires_grad_(False)
    network.memory_format = torch_format(teacher_layout(task.study, dataset.shown, task.settings, device))
    return network.to(device).to(memory_format=network.memory_format)


def _check_output(network: Network, pixels: Tensor, task: StepTask, num_classes: int) -> int | None:
    """Refuse a network whose output is no logits; return the smallest side of its maps, in pixels."""
    name = task.architecture
    known = set(network.state_dict())
    sides: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, given, maps: sides.extend(_side(given[0], maps)))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    output = _as_logits(network.eval()(pixels), (len(pixels), num_classes), task)
    for hook in hooks:
        hook.remove()
    if made := set(network.state_dict()) - known:
        raise UsageError(
            f"{name} makes {min(made).removeprefix('body.')} when it first sees an image, after its parameters were "
            "given to the optimizer; make all layers in its constructor"
        )
    if not output.requires_grad:
        raise UsageError(f"the output of {name} does not depend on any parameter that learns; {_remedy(task.study)}")
    if not bool(output.isfinite().all()):
        raise UsageError(f"the logits of {name} are not finite before any training; {_remedy(task.study)}")
    if bool((output >= 0).all()) and bool(((output.sum(dim=1) - 1).abs() < NO_PROBABILITY).all()):
        raise UsageError(f"{name} ends in a softmax, and logits are wanted; return what it passes to the softmax")
    first, black = pixels[:1], torch.zeros_like(pixels[:1])
    with torch.no_grad():
        alone = _as_logits(network(first), (1, num_classes), task)
        beside = network(torch.cat([first, black]).contiguous(memory_format=network.memory_format))[:1]
    if float((alone - beside).abs().max()) > TOLERANCE * float(beside.abs().max()):
        raise UsageError(
            f"{name} answers an image otherwise beside another one, or each time; let its BatchNorm track running "
            "statistics, and switch its dropout off in eval()"
        )
    _as_logits(network.train()(pixels), (len(pixels), num_classes), task, when=" in training")
    return min(sides, default=None)


def _as_logits(output: object, wanted: tuple[int, int], task: StepTask, *, when: str = "") -> Tensor:
    """Return an output (images, classes) as it is. Raises UsageError where it has no such form."""
    if isinstance(output, Tensor) and tuple(output.shape) == wanted and output.is_floating_point():
        return output
    found = f"a {type(output).__name__}"
    if isinstance(output, Tensor):
        found = f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"
    name = task.architecture
    raise UsageError(
        f"{name} gives {found}{when} for {wanted[0]} images, where logits {wanted} are wanted; "
        f"{'mend that code, or ' if ':' in name else ''}{_remedy(task.study)}"
    )


def _side(given: Tensor, maps: Tensor) -> Iterator[int]:
    """Yield the smaller side of maps, unless they come from what was pooled to a point before, as attention's do."""
    if min(given.shape[-2:]) > 1:
        yield min(maps.shape[-2:])
