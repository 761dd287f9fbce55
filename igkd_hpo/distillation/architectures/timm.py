"""Networks of timm, by its names, with its published weights, cut at the end by whole stages; an extra: `students`."""

from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from igkd_hpo.distillation.architectures import STAGES_REMOVED, Architecture, Knob, Origin, Published, Request, Triple
from igkd_hpo.errors import DataError, UsageError, did_you_mean, first_line

if TYPE_CHECKING:
    from torch import nn


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            f"a network of timm needs the package timm ({first_line(error)}); pip install 'igkd-hpo[students]'"
        ) from error
    return timm


def _check_name(request: Request) -> ModuleType:
    """Return timm, which has a network and, if the name says one, a tag of this name. Raises UsageError."""
    timm = _timm()
    name, dot, tag = request.rest.partition(".")
    if not timm.is_model(name):
        known = timm.list_models()
        raise UsageError(
            f"{request.name} is no network of timm{did_you_mean(name, known)}; `timm.list_models()` lists them"
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")] if dot else []
    if dot and tag not in tags:
        hint = did_you_mean(tag, tags) or (f" (known: {', '.join(tags)})" if tags else " (there are none of it)")
        raise UsageError(f"{request.name}: {tag!r} is no tag of published weights of {name}{hint}; leave it out")
    return timm


def version(request: Request) -> str:
    """Return timm's version; "none" where there is no timm."""
    from importlib import metadata

    try:
        return f"timm {metadata.version('timm')}"
    except metadata.PackageNotFoundError:
        return "none"


def origin(request: Request) -> Origin | None:
    """Return where the weights of this name, or tag, are from; None where there are none."""
    config = _check_name(request).get_pretrained_cfg(request.rest)
    if config is None or not config.has_weights:
        return None
    url = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    return Origin(str(config.tag), config.license or None, url)


def build(request: Request, *, stages_removed: int = 0) -> "nn.Module":
    """Return timm's network with random weights, without its last stages."""
    body = _create(request, num_classes=request.num_classes)
    if stages_removed:
        _cut(body, request, stages_removed)
    return cast("nn.Module", body)


def _create(request: Request, **options: Any) -> Any:
    """Return timm's network for images of this size, which its published weights are brought to."""
    timm = _check_name(request)
    height, width = request.image_size
    config = timm.get_pretrained_cfg(request.rest)
    if config is not None and config.fixed_input_size and (height, width) != tuple(config.input_size[1:]):
        options["img_size"] = request.image_size
    try:
        return timm.create_model(request.rest, **options)
    except TypeError as error:  # its constructor takes no size
        if "img_size" not in options:
            raise
        fixed = "x".join(map(str, config.input_size[1:]))
        raise UsageError(
            f"{request.name} takes images of {fixed} pixels alone, and these have {height}x{width}; "
            "write dataset.image_size, or take another network"
        ) from error


def _cut(body: Any, request: Request, stages: int) -> None:
    known = len(getattr(body, "feature_info", ()))
    if not hasattr(body, "prune_intermediate_layers") or not known:
        raise UsageError(f"stages_removed is {stages}, and {request.name} cannot be cut; write 0")
    if stages >= known:
        raise UsageError(f"stages_removed is {stages}, and {request.name} has {known} stages; lower it")
    try:
        body.prune_intermediate_layers([known - 1 - stages], prune_head=False)
        body.reset_classifier(request.num_classes, _pooling(body))
    except Exception as error:  # of those whose classifier needs every stage
        raise UsageError(
            f"stages_removed is {stages}, and {request.name} cannot be cut ({first_line(error)}); write 0"
        ) from error


def _pooling(body: Any) -> str:
    """Return the pooling that is left after a cut: a transformer's class token, or the mean."""
    return "token" if getattr(body, "cls_token", None) is not None else "avg"


def classes(request: Request) -> int | None:
    """Return how many classes the weights of this name, or tag, tell apart; None where there are no weights."""
    config = _check_name(request).get_pretrained_cfg(request.rest)
    return None if config is None or not config.has_weights else int(config.num_classes)


def statistics(request: Request) -> tuple[Triple, Triple] | None:
    """Return the mean and deviation with which the weights of this name, or tag, were trained."""
    config = _check_name(request).get_pretrained_cfg(request.rest)
    return None if config is None else (tuple(config.mean), tuple(config.std))


def published(request: Request) -> Published:
    """Return timm's weights of this name and tag, or of its default tag; downloaded unless they were before."""
    found = origin(request)
    if found is None:
        raise DataError(f"nobody has published weights of {request.name}; write init: random, or name a file of them")
    try:
        body = _create(request, pretrained=True)
    except UsageError:
        raise
    except Exception as error:  # of the hub's client, of the network, of a file's format
        raise DataError(
            f"the weights of {request.name} could not be downloaded ({first_line(error)}); run once with a network, "
            "copy that machine's cache of the Hugging Face hub, or name a file of them"
        ) from error
    return Published(tensors=body.state_dict(), origin=found)


def deploy(body: "nn.Module") -> "nn.Module":
    """Return a copy whose branches are merged into the convolutions that they stand for; itself without branches."""
    merging = ("fuse", "reparameterize", "switch_to_deploy")
    if not any(hasattr(part, name) for part in body.modules() for name in merging):
        return body
    from timm.utils.model import reparameterize_model

    return reparameterize_model(body)


def plain_code(request: Request, *, stages_removed: int) -> str:
    """Return code that builds what `build` builds, in the form that is shipped."""
    size = ""
    config = _check_name(request).get_pretrained_cfg(request.rest)
    if config is not None and config.fixed_input_size:
        size = f", img_size={request.image_size}"
    name = request.rest.partition(".")[0]
    lines = [
        "import timm",
        "from timm.utils.model import reparameterize_model",
        "",
        f"body = timm.create_model({name!r}, num_classes={request.num_classes}{size})",
    ]
    if stages_removed:
        lines += [
            f"body.prune_intermediate_layers([len(body.feature_info) - {1 + stages_removed}], prune_head=False)",
            f"body.reset_classifier({request.num_classes}, {_pooling(build(request))!r})",
        ]
    return "\n".join([*lines, "body = reparameterize_model(body)"])


ARCHITECTURE = Architecture(
    build=build,
    form="timm/NAME[.TAG]",
    knobs={"stages_removed": Knob(STAGES_REMOVED, "high")},
    code=plain_code,
    published=published,
    classes=classes,
    statistics=statistics,
    deploy=deploy,
    library="timm",
    foreign=True,
    version=version,
    look_up=_check_name,
    origin=origin,
)
