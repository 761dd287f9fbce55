"""Teacher networks by their name in the study file, with the weights that they are given."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from igkd_hpo.assets.checkpoint import Taken, load_weights, read_tensors
from igkd_hpo.assets.teacher_output import take_logits
from igkd_hpo.config.networks import Student as StudentSection
from igkd_hpo.config.networks import TeacherConfig
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.distillation.architectures import Request, find_architecture, kind_of
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.architectures.torchvision import check_name, create
from igkd_hpo.distillation.models import Network, Resized
from igkd_hpo.distillation.pointwise import multiply_pointwise
from igkd_hpo.errors import DataError
from igkd_hpo.settings import Settings

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

_LAST_BLOCK = 18  # of MobileNet-V2's 19, counted from 0
_BLOCK = re.compile(r"(?:^|\.)features\.(\d+)\.")
_AUXILIARY = re.compile(r"(?:^|\.)(?:aux\d|AuxLogits)\.")
# What a torchvision network does to its input and a state dict does not say: of inception_v3 and googlenet.
_TRANSFORMS = "transform_input"


def teacher_request(
    teacher: TeacherConfig, num_classes: int, image_size: tuple[int, int], settings: Settings
) -> Request:
    """Return what a teacher's network is asked for: its input has its own size, or else the images'."""
    size = image_size if teacher.input_size is None else (teacher.input_size, teacher.input_size)
    return Request(
        name=teacher.architecture, num_classes=num_classes, image_size=size, allow_import=settings.allow_import
    )


def build_body(
    teacher: TeacherConfig,
    request: Request,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    path: Path | None = None,
) -> tuple[nn.Module, Taken | None]:
    """Build the architecture with those of `tensors`, which are from `path`, that fit, or the weights it begins with.

    These are random where it is trained here, and its own elsewhere.

    Returns:
        The network, and what of the tensors was taken; None without them.

    Raises:
        UsageError: no such architecture, or code that --allow-import does not name.
        DataError: weights that do not fit.
    """
    num_classes = request.num_classes
    match kind_of(request.name):
        case "mobilenet_v2":
            body = _mobilenet_v2(teacher.width, num_classes, tensors)
        case "torchvision" if tensors is not None:
            check_name(request.rest)
            # Which many files lack, as only training needs them.
            body = create(request.rest, num_classes, auxiliary=any(map(_AUXILIARY.search, tensors)), initialise=False)
        case _:
            body = find_architecture(request.name).build(request)
            if not isinstance(body, torch.jit.ScriptModule):  # which takes no hooks
                body.register_forward_hook(partial(take_logits, num_classes=num_classes))
    if tensors is None and not teacher.is_trained_here:
        _load_published(body, teacher, request)
    if tensors is None:
        return body, None
    if has_transform(body, teacher):
        body.transform_input = _TRANSFORMS in tensors  # type: ignore[assignment]
    wanted = None if path is None else teacher.checkpoint_key
    return body, load_weights(body, tensors, path=path or Path("teacher"), num_classes=num_classes, wanted=wanted)


def _load_published(body: nn.Module, teacher: TeacherConfig, request: Request) -> None:
    """Load the weights of a teacher that brings its own; of people's own code, the function has done it already."""
    kind = find_architecture(request.name)
    if kind.published is None or kind.classes is None:
        return
    if (classes := kind.classes(request)) not in (None, request.num_classes):  # found before they are downloaded
        raise DataError(
            f"the published weights of {request.name} tell {classes} classes apart and the dataset has "
            f"{request.num_classes}; write teacher.weights: pretrained, to train them on these classes, or give "
            "teacher.checkpoint, a state dict that was"
        )
    tensors = kind.published(request).tensors
    load_weights(body, tensors, path=Path(request.name), num_classes=request.num_classes)
    if has_transform(body, teacher):
        body.transform_input = True  # type: ignore[assignment]  # as all of torchvision's weights of these need


def origin_facts(request: Request) -> dict[str, str | None]:
    """Return where a library's own weights are from, which the card of whoever learns from them names."""
    find = find_architecture(request.name).origin
    found = find and find(request)
    return {"weights": found.tag, "licence": found.licence, "url": found.url} if found else {}


def load_given_body(
    teacher: TeacherConfig, request: Request, settings: Settings, *, member: int = 0
) -> tuple[nn.Module, Taken | None]:
    """Build a teacher that needs no training: with its checkpoint's weights, or those its architecture brings.

    Args:
        member: its number among the checkpoints, from 0.

    Raises:
        UsageError, DataError: as `build_body` and `read_tensors`.
    """
    if not teacher.checkpoints:
        return build_body(teacher, request)
    path = Path(teacher.checkpoints[member])
    tensors = read_tensors(settings.data_path(str(path)))
    return build_body(teacher, request, tensors=tensors, path=path)


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


def wrap(
    body: nn.Module,
    teacher: TeacherConfig,
    request: Request,
    statistics: Statistics,
    *,
    memory_format: MemoryFormat = "channels_last",
) -> Network:
    """Put normalisation and input size before a body; frozen and in evaluation mode.

    Args:
        statistics: mean and standard deviation of the training images.
        memory_format: in which it can be run; one for every teacher that can, however it was made: kernels differ in
            their last bits between layouts.
    """
    mean, std = normalization(teacher, statistics, lambda: _statistics(request))
    network = Network(body if teacher.input_size is None else Resized(body, teacher.input_size), mean, std)
    network.memory_format = torch_format(memory_format)
    multiply_pointwise(network, network.memory_format)
    return network.eval().requires_grad_(False).to(memory_format=network.memory_format)


def _statistics(request: Request) -> Statistics:
    find = find_architecture(request.name).statistics
    found = find and find(request)
    if not found:
        raise DataError(
            f"what weights of {request.name} were trained with is not known; write teacher.normalize: [[mean], [std]]"
        )
    return found


def torch_format(memory_format: MemoryFormat) -> torch.memory_format:
    """Return torch's own name of a layout."""
    return torch.channels_last if memory_format == "channels_last" else torch.contiguous_format


def unwrap(network: Network) -> nn.Module:
    """Return the body that `wrap` wrapped, which a state dict of the teacher belongs to."""
    return network.body.body if isinstance(network.body, Resized) else network.body


def normalization(
    network: TeacherConfig | StudentSection, statistics: Statistics, of_weights: Callable[[], Statistics] | None
) -> Statistics:
    """Return the mean and standard deviation, in [0, 1] pixels, that a network's `normalize` stands for.

    Args:
        statistics: of the data set.
        of_weights: returns what the weights that it begins with were trained with; None where these are random.
    """
    if network.normalize == "weights" and of_weights is not None:
        return of_weights()
    if network.normalize in ("dataset", "weights"):
        return statistics
    if network.normalize == "none":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert not isinstance(network.normalize, str), "all words are above"
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
