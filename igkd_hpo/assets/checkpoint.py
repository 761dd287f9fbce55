"""Loading of a teacher's weights from a file: tensors only, out of whatever they are wrapped in, checked first."""

import argparse
import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igkd_hpo.assets.checkpoint_file import Format, find_format
from igkd_hpo.assets.checkpoint_fit import Fit, Shape, describe_misfit, find_fits
from igkd_hpo.errors import DataError, did_you_mean, first_line

_DEEPEST = 8  # mappings in mappings
_MOST_NAMED = 4
_CODE = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Tell what was taken out of a checkpoint, and what was left.

    Args:
        weights: the prefix of the names that were taken, as `teacher.checkpoint_key` takes it.
        others: those of other weights in the file that fit as well.
        renamed: layers that have another name in the file, by ours.
        left_out: how many tensors each other part of the file has.
    """

    weights: str
    others: tuple[str, ...]
    renamed: Mapping[str, str]
    left_out: Mapping[str, int]

    def tell(self) -> str | None:
        """Say what was chosen, renamed and left out, in one line; None where the file holds the weights alone."""
        parts = []
        if self.others:
            chosen = self.weights or "the weights at the top"
            parts.append(f"{chosen} taken, and not {', '.join(self.others)}: see teacher.checkpoint_key")
        if self.renamed:
            parts.append(_some([f"{theirs} taken for {ours}" for ours, theirs in self.renamed.items()]))
        if self.left_out:
            parts.append(f"left out {_some([f'{name} ({count})' for name, count in self.left_out.items()])}")
        return "; ".join(parts) or None


def _some(parts: list[str]) -> str:
    more = f" and {len(parts) - _MOST_NAMED} more" if len(parts) > _MOST_NAMED else ""
    return ", ".join(parts[:_MOST_NAMED]) + more


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's names, types, shapes and numbers, whatever its file and layout."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path, *, called: str = "teacher.checkpoint") -> dict[str, Tensor]:
    """Read every tensor of a checkpoint, by its names in the nested mappings, joined by dots.

    The file is mapped into memory where its format allows it, so that only what is used is read.

    Args:
        called: the study file's key, for messages.

    Raises:
        DataError: see `find_format`; or the file holds code and not only tensors, is damaged, or holds no tensor.
    """
    kind = find_format(path, called=called)
    try:
        if kind is Format.SAFETENSORS:
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # which training scripts keep beside them
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=kind is Format.ZIP)
    except pickle.UnpicklingError as error:
        if found := _CODE.search(str(error)):
            raise DataError(
                f"{called} {path} holds more than tensors ({found[1]}), which could run code when it is "
                "loaded; save it again as torch.save(model.state_dict(), path)"
            ) from error
        raise _unreadable(path, error, called) from error
    except Exception as error:  # a damaged file shows itself in many ways, a lack of memory among them
        raise _unreadable(path, error, called) from error
    tensors = dict(_flatten(content, "", 0, set()))
    if not tensors:
        shown = f"the keys {', '.join(map(str, list(content)[:4]))}" if isinstance(content, Mapping) else type(content)
        raise DataError(f"{called} {path} holds {shown} and no state dict; save model.state_dict()")
    return tensors


def _unreadable(path: Path, error: Exception, called: str = "teacher.checkpoint") -> DataError:
    return DataError(
        f"{called} {path} cannot be read ({first_line(error)}); it must be a file of torch.save(model.state_dict(), …)"
    )


def _flatten(content: Any, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield each plain tensor with its name; what is nested in itself, or in too many places, is looked at once."""
    if isinstance(content, Tensor):
        if content.layout is torch.strided and content.device.type == "cpu" and not content.is_quantized:
            yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping | list | tuple) and depth < _DEEPEST and id(content) not in seen:
        seen.add(id(content))
        for key, value in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from _flatten(value, f"{prefix}{key}.", depth + 1, seen)


def load_weights(
    body: nn.Module, tensors: Mapping[str, Tensor], *, path: Path, num_classes: int, wanted: str | None = None
) -> Taken:
    """Load into the body the weights that fit it, wherever they lie among the tensors; say what was taken.

    Args:
        path: where the tensors are from.
        wanted: `teacher.checkpoint_key`.

    Raises:
        DataError: none fit, with what differs and the advice that follows from it; or not those that are wanted.
    """
    expected = {name: tensor for name, tensor in body.state_dict().items() if isinstance(tensor, Tensor)}
    given, shapes = shapes_of(tensors), shapes_of(expected)
    if wanted is not None:
        given = _below(given, wanted, path)
    fits = find_fits(given, shapes)
    fit, *others = fits
    if not fit.whole:
        finding, advice = describe_misfit(fit, given, shapes, num_classes=num_classes)
        raise DataError(f"teacher.checkpoint {path} {finding}; {advice}")
    try:
        taken = {name: tensors[file] for name, file in fit.names.items()}
        body.load_state_dict({**body.state_dict(), **taken}, strict=True)
    except RuntimeError as error:  # numbers of a type that the network's cannot take
        raise _unreadable(path, error) from error
    return Taken(
        weights=fit.called,
        others=tuple(other.called for other in others),
        renamed=dict(_renamed(fit)),
        left_out=_parts(fit, others),
    )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return the shapes of tensors by their names."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _below(given: dict[str, Shape], wanted: str, path: Path) -> dict[str, Shape]:
    chosen = {name: shape for name, shape in given.items() if name.startswith(f"{wanted}.")}
    if not chosen:
        tops = list(dict.fromkeys(name.partition(".")[0] for name in given if "." in name))
        raise DataError(
            f"teacher.checkpoint_key {wanted!r} is not in {path}{did_you_mean(wanted, tops)}; "
            f"it holds {', '.join(tops[:12])}"
        )
    return chosen


def _renamed(fit: Fit) -> Iterator[tuple[str, str]]:
    for name, file in fit.names.items():
        ours, theirs = name.rpartition(".")[0], file.removeprefix(fit.prefix).rpartition(".")[0]
        if not (ours.endswith(theirs) or theirs.endswith(ours)) and "_orig_mod" not in theirs:
            yield ours, theirs


def _parts(fit: Fit, others: list[Fit]) -> Mapping[str, int]:
    """Count the tensors of each part of the file that is neither among the weights nor among others that fit."""
    known = [f"{other.called}." for other in others if other.called]
    within = fit.prefix.split(".")
    parts: Counter[str] = Counter()
    for name in fit.extras:
        if not name.startswith(tuple(known)):
            words = name.split(".")
            differs = next(i for i, word in enumerate(words) if i >= len(within) or word != within[i])
            parts[".".join(words[: differs + 1])] += 1
    return parts
