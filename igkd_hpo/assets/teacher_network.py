"""Teacher networks by their name in the study file: MobileNet-V2, a torchvision model, or people's own function."""

import importlib
import inspect
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igkd_hpo.assets.checkpoint import layers_removed, load_weights, read_state_dict
from igkd_hpo.config.study import Student as StudentSection
from igkd_hpo.config.study import TeacherConfig
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import DataError, UsageError, did_you_mean, first_line
from igkd_hpo.settings import Settings

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


class Resized(nn.Module):
    """A body behind a resizing of its input to a square: bilinear with antialias, so gradients pass through it."""

    def __init__(self, body: nn.Module, size: int) -> None:
        super().__init__()
        self.body = body
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of (B, 3, H, W), whatever H and W are."""
        resized = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.body(resized)
        return logits


def build_body(
    teacher: TeacherConfig,
    num_classes: int,
    settings: Settings,
    *,
    state: dict[str, Tensor] | None = None,
    path: Path | None = None,
) -> nn.Module:
    """Build the architecture with the weights of `state`, which is from `path`, or those that it begins with.

    Raises:
        UsageError: no such architecture, or code that --allow-import does not name.
        DataError: weights that do not fit.
    """
    name = teacher.architecture
    if name == "mobilenet_v2":
        cut = layers_removed(state) if state is not None else 0
        body = mobilenet_v2(num_classes=num_classes, width=teacher.width, layers_removed=cut)
    elif ":" in name:
        body = _call_own_function(name, num_classes, settings)
    else:
        body = _torchvision_model(name, num_classes, own_weights=state is None and teacher.checkpoint is None)
    if state is not None:
        load_weights(body, state, path=path or Path("teacher"), num_classes=num_classes)
    return body


def load_given_body(teacher: TeacherConfig, num_classes: int, settings: Settings, *, member: int = 0) -> nn.Module:
    """Build a teacher that needs no training: with its checkpoint's weights, or those its architecture brings.

    Args:
        member: its number among the checkpoints, from 0.

    Raises:
        UsageError, DataError: as `build_body` and `read_state_dict`.
    """
    if not teacher.checkpoints:
        return build_body(teacher, num_classes, settings)
    path = Path(teacher.checkpoints[member])
    state = read_state_dict(settings.data_path(str(path)))
    return build_body(teacher, num_classes, settings, state=state, path=path)


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


def check_output(network: Network, image_size: tuple[int, int], num_classes: int, name: str) -> None:
    """Run a network on two black images; raise DataError when it does not give logits (2, num_classes)."""
    device = network.mean.device
    try:
        with torch.no_grad():
            logits = network(torch.zeros(2, 3, *image_size, device=device))
    except Exception as error:  # whatever somebody's network raises on an input that it is not made for
        raise DataError(
            f"the teacher {name} fails on images of {image_size[1]}x{image_size[0]} ({first_line(error)}); "
            "set teacher.input_size to the size it was made for"
        ) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, num_classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(f"the teacher {name} gives {shape} for 2 images; it must give logits (2, {num_classes})")


def _torchvision_model(name: str, num_classes: int, *, own_weights: bool) -> nn.Module:
    import torchvision.models

    models = torchvision.models.list_models(module=torchvision.models)
    if name not in models:
        hint = did_you_mean(name, [*models, "mobilenet_v2"])
        raise UsageError(
            f"teacher.architecture {name!r} is no torchvision model{hint}; "
            "write mobilenet_v2, a torchvision name such as resnet18, or module:function of your own code"
        )
    if not own_weights:
        body: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
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
    except Exception as error:  # anything that somebody's code raises is told by name
        raise UsageError(
            f"teacher.architecture {name!r} cannot be used: {type(error).__name__}: "
            f"{first_line(error)}; mend that code, or the name"
        ) from error
    if not isinstance(body, nn.Module):
        raise UsageError(
            f"teacher.architecture {name!r} returned {type(body).__name__}; it must return a torch.nn.Module"
        )
    return body
