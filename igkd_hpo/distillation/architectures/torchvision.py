"""Networks of torchvision, by its names, with its published weights, cut at the end by whole stages."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

from igkd_hpo.distillation.architectures import STAGES_REMOVED, Architecture, Knob, Origin, Published, Request, Triple
from igkd_hpo.distillation.architectures.mobilenet_v2 import WIDTH
from igkd_hpo.errors import DataError, UsageError, did_you_mean, first_line

if TYPE_CHECKING:
    from torch import nn

_WITH_WIDTH = "torchvision/mobilenet_v2"
_PROBE = 256  # pixels: every network's stages are apart at that size
_SHUFFLENET = ("stage2", "stage3", "stage4")
_RESNET = ("layer1", "layer2", "layer3", "layer4")


def check_name(name: str) -> None:
    """Raise UsageError where torchvision has no classifier of this name, without `torchvision/`."""
    import torchvision.models

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UsageError(
            f"torchvision/{name} is no network of torchvision{did_you_mean(name, known)}; "
            "`torchvision.models.list_models()` lists them"
        )


def version(request: Request) -> str:
    """Return torchvision's version."""
    return f"torchvision {metadata.version('torchvision')}"


def look_up(request: Request) -> None:
    """Raise UsageError where torchvision has no classifier of this name."""
    check_name(request.rest)


def origin(request: Request) -> Origin:
    """Return where torchvision's newest weights of this name are from; it tells a licence where it is not its own."""
    import torchvision.models

    check_name(request.rest)
    newest = torchvision.models.get_model_weights(request.rest).DEFAULT
    return Origin(newest.name, newest.meta.get("license"), newest.url)


def create(
    name: str, num_classes: int, *, auxiliary: bool = False, initialise: bool = True, **options: Any
) -> "nn.Module":
    """Return torchvision's network, without the auxiliary heads that only training needs.

    Args:
        initialise: draw random weights carefully, which takes seconds for those two with such heads.
    """
    import torchvision.models

    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": auxiliary, "init_weights": initialise}
    body: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    return body


def build(request: Request, *, stages_removed: int = 0, width: float = 1.0) -> "nn.Module":
    """Return torchvision's network, without its last stages; `width` is that of its mobilenet_v2 alone."""
    check_name(request.rest)
    options: dict[str, Any] = {"width_mult": width} if request.name == _WITH_WIDTH else {}
    body = create(request.rest, request.num_classes, **options)
    if stages_removed:
        _cut(body, request, stages_removed)
    return body


def _cut(body: Any, request: Request, stages: int) -> None:
    """Cut the last stages off, and put a linear layer on what is left."""
    from torch import nn
    from torchvision.ops.misc import Conv2dNormActivation

    if all(hasattr(body, name) for name in (*_RESNET, "fc")):
        names: tuple[str, ...] = _RESNET
    elif all(hasattr(body, name) for name in (*_SHUFFLENET, "conv5", "fc")):
        names = _SHUFFLENET
        body.conv5 = nn.Identity()
    elif isinstance(getattr(body, "features", None), nn.Sequential) and isinstance(
        body.features[-1], Conv2dNormActivation
    ):
        strides = _strides(body.features)
        kept = [number for number, stride in enumerate(strides) if stride <= strides[-1] >> stages]
        if len(kept) < 2:
            raise _too_many(request, stages)
        body.features = body.features[: len(kept)]
        dropout = next((part.p for part in body.classifier if isinstance(part, nn.Dropout)), 0.0)
        body.classifier = nn.Identity()
        body.classifier = nn.Sequential(nn.Dropout(dropout), _head(body, request))
        return
    else:
        raise UsageError(
            f"stages_removed is {stages}, and the stages of {request.name} are not known; write 0, "
            "or take the network of that name of timm"
        )
    if stages >= len(names):
        raise _too_many(request, stages)
    for name in names[-stages:]:
        setattr(body, name, nn.Identity())
    body.fc = nn.Identity()
    body.fc = _head(body, request)


def _too_many(request: Request, stages: int) -> UsageError:
    return UsageError(f"stages_removed is {stages}, which leaves nothing of {request.name}; lower it")


def _strides(features: "nn.Sequential") -> list[int]:
    """Return by how much the input is reduced after each block."""
    import copy

    import torch

    blocks = copy.deepcopy(features).to("meta").eval()
    x, strides = torch.empty(1, 3, _PROBE, _PROBE, device="meta"), []
    for block in blocks:
        x = block(x)
        strides.append(_PROBE // x.shape[-1])
    return strides


def _head(body: "nn.Module", request: Request) -> "nn.Linear":
    """Return a linear layer on what a network without its last layer gives."""
    import copy

    import torch
    from torch import nn

    given = copy.deepcopy(body).to("meta").eval()(torch.empty(1, 3, _PROBE, _PROBE, device="meta"))
    return nn.Linear(given.shape[1], request.num_classes)


def classes(request: Request) -> int | None:
    """Return how many classes torchvision's newest weights of this name tell apart."""
    import torchvision.models

    check_name(request.rest)
    return len(torchvision.models.get_model_weights(request.rest).DEFAULT.meta["categories"])


def statistics(request: Request) -> tuple[Triple, Triple] | None:
    """Return the mean and deviation with which torchvision's newest weights of this name were trained."""
    import torchvision.models

    check_name(request.rest)
    transforms = torchvision.models.get_model_weights(request.rest).DEFAULT.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def published(request: Request) -> Published:
    """Return the weights that torchvision calls the default of this name; downloaded unless they were before."""
    from pathlib import Path

    import torch
    import torchvision.models

    check_name(request.rest)
    weights = torchvision.models.get_model_weights(request.rest).DEFAULT
    try:
        tensors = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise DataError(
            f"the weights of {request.name} could not be downloaded ({first_line(error)}); "
            f"put {weights.url} into {cache} by hand and run again, or name a file of them"
        ) from error
    return Published(tensors=tensors, origin=origin(request))


def plain_code(request: Request, *, stages_removed: int, width: float) -> str:
    """Return code that builds what `build` builds."""
    more = f", width_mult={width!r}" if request.name == _WITH_WIDTH else ""
    if request.rest in ("googlenet", "inception_v3"):
        more = ", aux_logits=False, init_weights=False"
    lines = ["from torchvision.models import get_model", ""]
    create = f"body = get_model({request.rest!r}, weights=None, num_classes={request.num_classes}{more})"
    if stages_removed:
        return "\n".join(["from torch import nn", *lines, create, *_cutting_code(request, stages_removed, width)])
    return "\n".join([*lines, create])


def _cutting_code(request: Request, stages: int, width: float) -> list[str]:
    """Return the lines that cut as `_cut` does, with the sizes that it leaves."""
    from torch import nn

    body: Any = build(request, stages_removed=stages, width=width)
    if hasattr(body, "fc"):
        removed = [
            name for name in (*_RESNET, *_SHUFFLENET, "conv5") if isinstance(getattr(body, name, 0), nn.Identity)
        ]
        lines = [f"body.{name} = nn.Identity()" for name in removed]
        return [*lines, f"body.fc = nn.Linear({body.fc.in_features}, {request.num_classes})"]
    dropout, head = body.classifier
    new = f"nn.Sequential(nn.Dropout({dropout.p!r}), nn.Linear({head.in_features}, {request.num_classes}))"
    return [f"body.features = body.features[:{len(body.features)}]", f"body.classifier = {new}"]


ARCHITECTURE = Architecture(
    build=build,
    form="torchvision/NAME",
    knobs={"stages_removed": Knob(STAGES_REMOVED, "high"), "width": Knob(WIDTH, "low", only=(_WITH_WIDTH,))},
    code=plain_code,
    published=published,
    classes=classes,
    statistics=statistics,
    foreign=True,
    version=version,
    look_up=look_up,
    origin=origin,
)
