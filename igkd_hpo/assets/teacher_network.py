"""Teacher networks by their name in the study file: MobileNet-V2, a torchvision model, or people's own function."""

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from igkd_hpo.assets.checkpoint import Taken, load_weights, read_tensors
from igkd_hpo.assets.teacher_output import Resized, take_logits
from igkd_hpo.config.study import Student as StudentSection
from igkd_hpo.config.study import TeacherConfig
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import DataError, UsageError, did_you_mean, first_line
from igkd_hpo.settings import Settings

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

_LAST_BLOCK = 18  # of MobileNet-V2's 19, counted from 0
_BLOCK = re.compile(r"(?:^|\.)features\.(\d+)\.")
_AUXILIARY = re.compile(r"(?:^|\.)(?:aux\d|AuxLogits)\.")
# What a torchvision network does to its input and a state dict does not say: of inception_v3 and googlenet.
_TRANSFORMS = "transform_input"


def build_body(
    teacher: TeacherConfig,
    num_classes: int,
    settings: Settings,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    path: Path | None = None,
) -> tuple[nn.Module, Taken | None]:
    """Build the architecture with those of `tensors`, which are from `path`, that fit, or the weights it begins with.

    Returns:
        The network, and what of the tensors was taken; None without them.

    Raises:
        UsageError: no such architecture, or code that --allow-import does not name.
        DataError: weights that do not fit.
    """
    name = teacher.architecture
    if name == "mobilenet_v2":
        body = _mobilenet_v2(teacher.width, num_classes, tensors)
    elif ":" in name:
        body = _call_own_function(name, num_classes, settings)
    else:
        body = _torchvision_model(name, num_classes, tensors, own_weights=tensors is None)
    if tensors is None:
        return body, None
    if has_transform(body, teacher):
        body.transform_input = _TRANSFORMS in tensors  # type: ignore[assignment]
    wanted = None if path is None else teacher.checkpoint_key
    return body, load_weights(body, tensors, path=path or Path("teacher"), num_classes=num_classes, wanted=wanted)


def load_given_body(
    teacher: TeacherConfig, num_classes: int, settings: Settings, *, member: int = 0
) -> tuple[nn.Module, Taken | None]:
    """Build a teacher that needs no training: with its checkpoint's weights, or those its architecture brings.

    Args:
        member: its number among the checkpoints, from 0.

    Raises:
        UsageError, DataError: as `build_body` and `read_tensors`.
    """
    if not teacher.checkpoints:
        return build_body(teacher, num_classes, settings)
    path = Path(teacher.checkpoints[member])
    tensors = read_tensors(settings.data_path(str(path)))
    return build_body(teacher, num_classes, settings, tensors=tensors, path=path)


def teacher_state(body: nn.Module, teacher: TeacherConfig) -> dict[str, Tensor]:
    """Return all that makes this teacher of its architecture: its state dict, and what torchvision keeps beside it."""
    own = body.state_dict().items()  # which may hold more than tensors
    state = {name: value.detach().cpu().contiguous() for name, value in own if isinstance(value, Tensor)}
    if has_transform(body, teacher) and body.transform_input:
        state[_TRANSFORMS] = torch.tensor(True)
    return state


def has_transform(body: nn.Module, teacher: TeacherConfig) -> bool:
    """Return whether it is a torchvision network that may change its input, by its attribute `transform_input`."""
    return ":" not in teacher.architecture and hasattr(body, _TRANSFORMS)


def wrap(body: nn.Module, teacher: TeacherConfig, statistics: Statistics) -> Network:
    """Put normalisation and input size before a body; frozen and in evaluation mode.

    Args:
        statistics: mean and standard deviation of the training images.
    """
    mean, std = normalization(teacher, statistics)
    network = Network(body if teacher.input_size is None else Resized(body, teacher.input_size), mean, std)
    # One layout for every teacher, however it was made: kernels differ in their last bits between layouts.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def unwrap(network: Network) -> nn.Module:
    """Return the body that `wrap` wrapped, which a state dict of the teacher belongs to."""
    return network.body.body if isinstance(network.body, Resized) else network.body


def normalization(network: TeacherConfig | StudentSection, statistics: Statistics) -> Statistics:
    """Return the mean and standard deviation, in [0, 1] pixels, that a network's `normalize` stands for."""
    if network.normalize == "dataset":
        return statistics
    if network.normalize == "none":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return network.normalize


def _mobilenet_v2(width: float, num_classes: int, tensors: Mapping[str, Tensor] | None) -> nn.Module:
    """Build one with as many blocks as the tensors have: by their names, or else by how many there are."""
    names = list(tensors or ())
    blocks = [int(match[1]) for name in names if (match := _BLOCK.search(name))]
    cut = min(max(_LAST_BLOCK - max(blocks, default=_LAST_BLOCK), 0), _LAST_BLOCK - 1)
    if names and not blocks:  # its layers have other names
        with torch.device("meta"):
            sizes = [
                len(mobilenet_v2(num_classes=num_classes, width=width, layers_removed=fewer).state_dict())
                for fewer in range(_LAST_BLOCK)
            ]
        cut = sizes.index(len(names)) if len(names) in sizes else 0
    return mobilenet_v2(num_classes=num_classes, width=width, layers_removed=cut)


def _torchvision_model(
    name: str, num_classes: int, tensors: Mapping[str, Tensor] | None, *, own_weights: bool
) -> nn.Module:
    import torchvision.models

    models = torchvision.models.list_models(module=torchvision.models)
    if name not in models:
        hint = did_you_mean(name, [*models, "mobilenet_v2"])
        raise UsageError(
            f"teacher.architecture {name!r} is no torchvision model{hint}; "
            "write mobilenet_v2, a torchvision name such as resnet18, or module:function of your own code"
        )
    if not own_weights:
        options: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):  # whose auxiliary heads only training needs, and many files lack
            heads = any(_AUXILIARY.search(other) for other in tensors or ())
            options = {"aux_logits": heads, "init_weights": False}
        body: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
        return body
    weights = torchvision.models.get_model_weights(name).DEFAULT
    categories = len(weights.meta["categories"])
    if categories != num_classes:
        raise DataError(
            f"torchvision's weights of {name} are for {categories} classes and the dataset has {num_classes}; "
            "give teacher.checkpoint, a state dict fine-tuned on these classes"
        )
    try:
        body = torchvision.models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise DataError(
            f"the weights of {name} could not be downloaded ({first_line(error)}); "
            f"put {weights.url} into {cache} by hand and run again"
        ) from error
    return body


def _call_own_function(name: str, num_classes: int, settings: Settings) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    top = module_name.partition(".")[0]
    if top not in settings.allow_import:
        raise UsageError(
            f"teacher.architecture {name!r} is code of the module {top}, which this machine was not told to trust; "
            f"if you do, add --allow-import {top} (or set IGKD_HPO_ALLOW_IMPORT={top})"
        )
    # A module beside the study is found however the command was started; at the end, it hides no installed one.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        takes = inspect.signature(function).parameters
        body = function(num_classes=num_classes) if "num_classes" in takes else function()
    except (Exception, SystemExit) as error:  # anything that somebody's code raises is told by name
        raise UsageError(
            f"teacher.architecture {name!r} cannot be used: {type(error).__name__}: "
            f"{first_line(error)}; mend that code, or the name"
        ) from error
    if not isinstance(body, nn.Module):
        raise UsageError(
            f"teacher.architecture {name!r} returned {type(body).__name__}; it must return a torch.nn.Module"
        )
    if any(is_lazy(value) for value in (*body.parameters(), *body.buffers())):
        raise UsageError(
            f"teacher.architecture {name!r} has layers that learn their size from their first input; "
            "run it once on a tensor (1, 3, height, width) in that function"
        )
    if not isinstance(body, torch.jit.ScriptModule):  # which takes no hooks
        body.register_forward_hook(partial(take_logits, num_classes=num_classes))
    return body
