"""The places of a network at which it has halved its input's size so and so often, and the features that they give.

Networks of different families have no blocks in common, but nearly all halve their maps several times; so features of
one stride are compared. A network need not be known for that: its places are found by running it once.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igkd_hpo.distillation.blocks import Features
from igkd_hpo.distillation.evaluation import evaluating
from igkd_hpo.distillation.models import Network, Resized
from igkd_hpo.distillation.reparameterization import merged
from igkd_hpo.errors import UsageError, first_line

STRIDES = (2, 4, 8, 16, 32)
# Divided by every stride without a rest, and large enough that all are apart, also where convolutions without padding
# take off a rim. Not square: (B, H, W, C), which some transformers give, is then not taken for (B, C, H, W), nor a
# pooling to a square, whatever comes in, for a stride.
_PROBE = (512, 640)
_RIM = 1.25  # the ratio of these sides
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
            positions = output[:, -math.prod(self.size) :].transpose(1, 2)
            output = positions.reshape(*positions.shape[:2], *self.size)
        return output.clone()


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
    ways = (
        "take another architecture, cut less off it, or leave out attention_weight, hint_weight, rtk_weight, "
        "skt_intra_weight, skt_inter_weight and controls with at"
    )
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
    smaller = (min(one.shape[-2], other.shape[-2]), min(one.shape[-1], other.shape[-1]))
    pooled = (part if part.shape[-2:] == smaller else F.adaptive_avg_pool2d(part, smaller) for part in (one, other))
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
    if not _parts(body):  # TorchScript, and one function
        return {}
    real = _run_copy(body, own_size or image_size, rim=1)
    if isinstance(own := getattr(body, "taps", None), Mapping):
        return _check_own(own, real, type(body).__name__)
    probe = real
    with suppress(UsageError):  # of a network that is made for one size
        probe = _run_copy(body, _PROBE, rim=_RIM)
    found, lost = {}, False
    for stride in STRIDES:
        last = probe.last_at(stride, of=real.once.keys())
        if last is None:
            continue
        if probe.turns_into_tokens(last, stride):
            lost = True
        elif _is_map(shape := real.once[last.module].gives):
            found[stride] = Tap(last.module, shape[1], (shape[2], shape[3]))
    if lost:
        found |= _of_tokens(getattr(body, "feature_info", ()), real)
    return dict(sorted(found.items()))


@dataclass(eq=False)
class _Call:
    """A call of a module: by which others it was made, and the shapes of what it was given and gives."""

    module: str
    own_weights: bool  # whether it is a layer: without parts, and with weights
    callers: tuple["_Call", ...]
    given: Sequence[int]
    gives: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run of a body on an image.

    Args:
        calls: of its modules, in the order in which they end.
        rim: less than this often a map may be smaller than its stride makes it; 1: by less than one position.
    """

    calls: Sequence[_Call]
    size: Size
    rim: float

    @cached_property
    def once(self) -> dict[str, _Call]:
        """The calls of modules that ran once, by their names."""
        times = Counter(call.module for call in self.calls)
        return {call.module: call for call in self.calls if times[call.module] == 1}

    def last_at(self, stride: int, *, of: Collection[str]) -> _Call | None:
        """Return the last call that gives maps of this stride, of modules of these names."""
        fitting = [call for call in self.calls if call.module in of and self.layout(call.gives, stride) == "BCHW"]
        return next((call for call in reversed(fitting) if not self._before_halving(call, stride)), None)

    def _before_halving(self, call: _Call, stride: int) -> bool:
        return any(
            (self.layout(caller.given, stride), self.layout(caller.gives, 2 * stride)) == ("BCHW", "BCHW")
            for caller in call.callers
        )

    def turns_into_tokens(self, last: _Call, stride: int) -> bool:
        """Return whether a layer after that call gives the positions of this stride in another layout."""
        later = self.calls[self.calls.index(last) :]
        return any(call.own_weights and self.layout(call.gives, stride) in ("BHWC", "BNC") for call in later)

    def layout(self, shape: Sequence[int], stride: int) -> str | None:
        """Return how a shape holds several positions of this stride; None where it does not."""
        if _is_map(shape) and self._fits(shape[2:], stride):
            return "BCHW"
        if len(shape) == 4 and math.prod(shape[1:3]) > 1 and self._fits(shape[1:3], stride):
            return "BHWC"
        positions = math.prod(whole // stride for whole in self.size)
        return "BNC" if len(shape) == 3 and 1 < positions <= shape[1] <= positions + _PREFIX else None

    def _fits(self, sides: Sequence[int], stride: int) -> bool:
        return all(
            whole / (self.rim * stride) - (self.rim == 1) < side <= -(-whole // stride)
            for side, whole in zip(sides, self.size, strict=True)
        )


def _is_map(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and math.prod(shape[2:]) > 1


def _check_own(own: Mapping[str, int], real: _Run, kind: str) -> dict[int, Tap]:
    taps: dict[int, Tap] = {}
    for name, stride in own.items():
        shape = real.once[name].gives if name in real.once else ()
        if len(shape) != 4 or stride in taps:
            what = f"names two modules of stride {stride}" if stride in taps else f"names {name!r}"
            raise UsageError(
                f"the attribute taps of {kind} {what}; it must name, for each stride, one module that runs once and "
                "gives (B, C, H, W)"
            )
        taps[stride] = Tap(name, shape[1], (shape[2], shape[3]))
    return {stride: tap for stride, tap in sorted(taps.items()) if math.prod(tap.size) > 1}


def _of_tokens(infos: object, real: _Run) -> dict[int, Tap]:
    """Return the last of the modules of each stride that timm names in a network's `feature_info`."""
    taps: dict[int, Tap] = {}
    for info in infos if isinstance(infos, list | tuple) else ():
        if not isinstance(info, Mapping) or not {"module", "reduction"} <= info.keys():
            continue
        stride, name = int(info["reduction"]), str(info["module"])
        shape = real.once[name].gives if name in real.once else ()
        if (layout := real.layout(shape, stride)) is not None:
            maps = {"BCHW": shape[2:], "BHWC": shape[1:3], "BNC": [whole // stride for whole in real.size]}[layout]
            taps[stride] = Tap(name, shape[1] if layout == "BCHW" else shape[-1], (maps[0], maps[1]), layout)
    return taps


def _run_copy(body: nn.Module, size: Size, *, rim: float) -> _Run:
    """Run a copy once, without numbers where it needs none. Raises UsageError where it fails."""
    plain = merged(body)  # parametrizations are modules too, of which some give what looks like a map
    with suppress(Exception):  # of code that needs numbers
        return _Run(calls=_run(copy.deepcopy(plain).to("meta"), size), size=size, rim=rim)
    try:
        return _Run(calls=_run(copy.deepcopy(plain).cpu(), size), size=size, rim=rim)
    except Exception as error:  # of anybody's code
        raise UsageError(
            f"{type(body).__name__} fails on an image of {size[1]}x{size[0]} ({first_line(error)}); take another "
            "network, or another size of the images"
        ) from error


def _run(body: nn.Module, size: Size) -> list[_Call]:
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

    for name, module in _parts(body).items():
        module.register_forward_pre_hook(begin(name, module))
        module.register_forward_hook(end)
    with torch.random.fork_rng([]), evaluating(body):
        body(torch.rand(1, 3, *size, device=device))
    return done


def _parts(body: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that take hooks, by name; not the body itself."""
    parts = dict(body.named_modules()).items()
    return {name: part for name, part in parts if name and not isinstance(part, torch.jit.ScriptModule)}


def _shape(value: object) -> Sequence[int]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
