"""The places of a network at which it has halved its input's size so and so often, and the features that they give.

Networks of different families have no blocks in common, but nearly all halve their maps several times; so features of
one stride are compared. A network need not be known for that: its places are found by running it once.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igkd_hpo.distillation.blocks import Features
from igkd_hpo.distillation.evaluation import evaluating
from igkd_hpo.distillation.models import Network, Resized
from igkd_hpo.errors import UsageError, first_line

STRIDES = (2, 4, 8, 16, 32)
# Divided by every stride without a rest; large enough that all are apart, and not square, so that (B, H, W, C), which
# some transformers give, is not taken for (B, C, H, W).
_PROBE = (256, 320)
_PREFIX = 8  # most tokens that stand for no place: of the class, of distillation, registers
Size = tuple[int, int]


class Tap(NamedTuple):
    """A module of a network's body whose output is taken.

    Args:
        channels: that it gives.
        size: height and width of its maps, for images of the size that it was asked for.
        layout: of its output: BCHW, BHWC, or BNC: tokens, the last of which are the positions, row by row.
    """

    module: str
    channels: int
    size: Size
    layout: str = "BCHW"

    def as_map(self, output: Tensor) -> Tensor:
        """Return the output as a map (B, C, H, W) of its own memory, which the network cannot change any more."""
        if self.layout == "BHWC":
            output = output.permute(0, 3, 1, 2)
        elif self.layout == "BNC":
            output = output[:, -math.prod(self.size) :].transpose(1, 2).unflatten(2, self.size)
        return output.clone()


@dataclass(eq=False)
class _Call:
    """A call of a module: by which others it was made, and the shapes of what it was given and gives."""

    module: str
    own_weights: bool  # whether it is a layer: without parts, and with weights
    callers: tuple["_Call", ...]
    given: Sequence[int]
    gives: Sequence[int] = field(default=())


class ByStride:
    """A network that gives features by stride; it is run as it is, as a whole."""

    def __init__(self, network: Network, image_size: Size) -> None:
        """Find the network's taps for images (height, width). Raises UsageError, see `find_taps`."""
        self._network = network
        self._body, _ = _inner_body(network)
        self.kind = type(self._body).__name__
        self.taps = find_taps(network, image_size)

    def channels(self, stride: int) -> int:
        """Return how many channels its features of that stride have."""
        return self.taps[stride].channels

    def run(self, pixels: Tensor, strides: Collection[int], *, logits: bool = True) -> tuple[Features, Tensor | None]:
        """Return the features of pixels (B, 3, H, W) in [0, 1] at these strides and, if wanted, the logits."""
        features: Features = {}
        with self._listening(strides, features):
            answer: Tensor = self._network(pixels)
        return features, answer if logits else None

    @contextmanager
    def _listening(self, strides: Collection[int], features: Features) -> Iterator[None]:
        """Put features into the dictionary inside; hooks that stayed would be copied with the network, and fire."""

        def listen(stride: int) -> Callable[..., None]:
            def hook(_: nn.Module, __: object, output: Tensor) -> None:
                features[stride] = self.taps[stride].as_map(output)

            return hook

        with ExitStack() as hooks:
            for stride in strides:
                module = self._body.get_submodule(self.taps[stride].module)
                hooks.callback(module.register_forward_hook(listen(stride)).remove)
            yield


def common_strides(student: ByStride, teacher: ByStride) -> tuple[int, ...]:
    """Return the strides at which both have features, ascending. Raises UsageError where there are none."""
    if common := tuple(stride for stride in student.taps if stride in teacher.taps):
        return common
    ways = "take another architecture, or leave out attention_weight, hint_weight and controls with at"
    for whose, network in (("student", student), ("teacher", teacher)):
        if not network.taps:
            raise UsageError(
                f"the {whose}'s {network.kind} gives no maps (B, C, H, W) at a stride of "
                f"{', '.join(map(str, STRIDES))}, with which features are compared; {ways}; "
                "a network of your own can name its modules, with their strides, in an attribute taps"
            )
    both = (", ".join(map(str, network.taps)) for network in (student, teacher))
    raise UsageError("the student has maps of stride {}, the teacher of {}: none in common; {}".format(*both, ways))


def _inner_body(network: Network) -> tuple[nn.Module, Size | None]:
    """Return the body without the resizing before it, and the size of that; None where there is none."""
    if isinstance(network.body, Resized):
        return network.body.body, (network.body.size, network.body.size)
    return network.body, None


def to_same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps, (…, H, W), at the smaller height and width, by means over areas; alike they stay as is."""
    smaller = [min(sides) for sides in zip(one.shape[-2:], other.shape[-2:], strict=True)]
    pooled = (part if [*part.shape[-2:]] == smaller else F.adaptive_avg_pool2d(part, smaller) for part in (one, other))
    return next(pooled), next(pooled)


def find_taps(network: Network, image_size: Size) -> dict[int, Tap]:
    """Return by stride, ascending, the last module of the body with such maps of more than one position; may be empty.

    Its own attribute `taps`, a mapping from module names to strides, is believed. Others are found by a run of a copy,
    on the meta device where that works. A module that runs several times is passed over, and so is what a block that
    halves the maps does before it halves them: that is a part of the next stage. Where a network turns its maps into
    tokens, these are its features, of the modules in timm's `feature_info`.

    Raises:
        UsageError: it fails on images of that size, or its attribute names what it does not have.
    """
    body, own_size = _inner_body(network)
    size = own_size or image_size
    if not _parts(body):  # TorchScript, and one function
        return {}
    calls = _run_copy(body, size)
    times = Counter(call.module for call in calls)
    once = {call.module: call for call in calls if times[call.module] == 1}
    if isinstance(own := getattr(body, "taps", None), Mapping):
        return _check_own(own, once, type(body).__name__)
    probed, probe = calls, size
    with suppress(UsageError):  # of a network that is made for one size
        probed, probe = _run_copy(body, _PROBE), _PROBE
    found, lost = {}, False
    for stride in STRIDES:
        last = _last_at(stride, [call for call in probed if call.module in once], probe)
        if last is None:
            continue
        if _turns_into_tokens(stride, probed[probed.index(last) :], probe):
            lost = True
        elif _fits(shape := once[last.module].gives, size, stride):
            found[stride] = Tap(last.module, shape[1], (shape[2], shape[3]))
    if lost:
        found |= _of_tokens(getattr(body, "feature_info", ()), once, size)
    return dict(sorted(found.items()))


def _check_own(own: Mapping[str, int], once: Mapping[str, _Call], kind: str) -> dict[int, Tap]:
    taps: dict[int, Tap] = {}
    for name, stride in own.items():
        shape = once[name].gives if name in once else ()
        if len(shape) != 4 or stride in taps:
            what = f"names two modules of stride {stride}" if stride in taps else f"names {name!r}"
            raise UsageError(
                f"the attribute taps of {kind} {what}; it must name, for each stride, one module that runs once and "
                "gives (B, C, H, W)"
            )
        taps[stride] = Tap(name, shape[1], (shape[2], shape[3]))
    return {stride: tap for stride, tap in sorted(taps.items()) if math.prod(tap.size) > 1}


def _copy(body: nn.Module, device: str) -> nn.Module:
    return copy.deepcopy(body).to(device).eval()


def _run_copy(body: nn.Module, size: Size) -> list[_Call]:
    with suppress(Exception):  # of code that needs numbers
        return _calls(_copy(body, "meta"), size)
    try:
        return _calls(_copy(body, "cpu"), size)
    except Exception as error:  # of anybody's code
        raise UsageError(
            f"{type(body).__name__} fails on an image of {size[1]}x{size[0]} ({first_line(error)}); take another "
            "network, or another size of the images"
        ) from error


def _calls(body: nn.Module, size: Size) -> list[_Call]:
    """Run the body once; return the calls of its modules, in the order in which they end."""
    device = next((tensor.device for tensor in (*body.parameters(), *body.buffers())), torch.device("cpu"))
    active: list[_Call] = []
    done: list[_Call] = []

    def begin(name: str, module: nn.Module) -> Callable[..., None]:
        own_weights = not list(module.children()) and bool(list(module.parameters()))

        def hook(_: nn.Module, inputs: tuple[object, ...]) -> None:
            active.append(_Call(name, own_weights, tuple(active), _shape(inputs[0] if inputs else None)))

        return hook

    def end(_: nn.Module, __: object, output: object) -> None:
        call = active.pop()
        call.gives = _shape(output)
        done.append(call)

    handles = []
    try:
        for name, module in _parts(body).items():
            handles += [module.register_forward_pre_hook(begin(name, module)), module.register_forward_hook(end)]
        with torch.random.fork_rng([]), evaluating(body):
            body(torch.rand(1, 3, *size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return done


def _parts(body: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that take hooks, by name; not the body itself."""
    parts = dict(body.named_modules()).items()
    return {name: part for name, part in parts if name and not isinstance(part, torch.jit.ScriptModule)}


def _shape(value: object) -> Sequence[int]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _fits(shape: Sequence[int], size: Size, stride: int, *, first: int = 2) -> bool:
    """Whether a shape holds maps, of more than one position, of images of this size at this stride."""
    maps = shape[first : first + 2]
    exact = all(whole // stride <= part <= -(-whole // stride) for part, whole in zip(maps, size, strict=False))
    return len(shape) == 4 and exact and math.prod(maps) > 1


def _last_at(stride: int, calls: Sequence[_Call], size: Size) -> _Call | None:
    fitting = [call for call in calls if _fits(call.gives, size, stride)]
    return next((call for call in reversed(fitting) if not _before_halving(call, size, stride)), None)


def _before_halving(call: _Call, size: Size, stride: int) -> bool:
    return any(_fits(caller.given, size, stride) and _fits(caller.gives, size, 2 * stride) for caller in call.callers)


def _turns_into_tokens(stride: int, later: Sequence[_Call], size: Size) -> bool:
    """Whether a later layer gives the positions of this stride in another layout."""
    return any(call.own_weights and _layout(call.gives, size, stride) in ("BHWC", "BNC") for call in later)


def _layout(shape: Sequence[int], size: Size, stride: int) -> str | None:
    if _fits(shape, size, stride):
        return "BCHW"
    if _fits(shape, size, stride, first=1):
        return "BHWC"
    positions = math.prod(whole // stride for whole in size)
    return "BNC" if len(shape) == 3 and 1 < positions <= shape[1] <= positions + _PREFIX else None


def _of_tokens(infos: object, once: Mapping[str, _Call], size: Size) -> dict[int, Tap]:
    """Return the last of the modules of each stride that timm names in a network's `feature_info`."""
    taps: dict[int, Tap] = {}
    for info in infos if isinstance(infos, list | tuple) else ():
        if not isinstance(info, Mapping) or not {"module", "reduction"} <= info.keys():
            continue
        stride, name = int(info["reduction"]), str(info["module"])
        shape = once[name].gives if name in once else ()
        if (layout := _layout(shape, size, stride)) is not None:
            maps = {"BCHW": shape[2:], "BHWC": shape[1:3], "BNC": [whole // stride for whole in size]}[layout]
            taps[stride] = Tap(name, shape[1] if layout == "BCHW" else shape[-1], (maps[0], maps[1]), layout)
    return taps
