"""Find a network's weights among the tensors of a file, by names and shapes alone, whatever they are wrapped in.

A file's nested mappings are flattened first, so that a wrapping (`state_dict`), a prefix (`module.`, `backbone.`) and
several of them look alike: as a prefix of all names.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_COUNTERS = {"num_batches_tracked", "n_averaged", "total_ops", "total_params"}  # the last two are a profiler's
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # which torch puts anywhere in a name
_USUAL = ("", "state_dict", "model_state_dict", "model", "net", "body")  # where plain weights lie, the first first
_MOST_PREFIXES = 32  # that are tried; 4,000 of them took 13 s
_AVERAGED = {"ema", "averaged", "average", "avg", "swa", "shadow"}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Tell what of a network a file has below one prefix; names of the file are whole, with the prefix.

    Args:
        prefix: in the file, empty or with a dot at its end.
        names: the file's name of each of the network's that was found, whatever its shape.
        missing: names of the network that were not found; counters of batches are not missed.
        differing: names of the network that were found with another shape.
        surplus: names of the file that belong to the network's parts and have no place in it: it is a smaller one.
        extras: all other names of the file, below this prefix or not, counters left out.
    """

    prefix: str
    names: Mapping[str, str]
    missing: tuple[str, ...]
    differing: tuple[str, ...]
    surplus: tuple[str, ...]
    extras: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether these are weights of that network."""
        return not (self.missing or self.differing or self.surplus)

    @property
    def called(self) -> str:
        """The prefix, as `teacher.checkpoint_key` takes it."""
        return self.prefix.rstrip(".")

    @property
    def averaged(self) -> bool:
        """Whether the prefix says that they are a running average."""
        return not _AVERAGED.isdisjoint(self.prefix.replace("_", ".").split("."))


def find_fits(given: Shapes, expected: Shapes) -> list[Fit]:
    """Return every set of weights in the file that fits the network; where none does, the one that comes nearest.

    The order of the file's names does not count where they are the network's, and decides where only the order and
    the shapes fit. Plain weights come first, then averaged ones.

    Args:
        given: shapes by the flattened names of the file.
        expected: shapes of the network's state dict.
    """
    clean = {_without_wrappers(name): name for name in given}
    fits = [
        _fit(clean, given, expected, prefix=prefix, inner=inner)
        for inner in _common_prefixes(expected)
        for prefix in _prefixes(clean, {name.removeprefix(inner) for name in expected})
    ]
    whole = sorted((fit for fit in fits if fit.whole), key=_plainness)
    return whole or [max(fits, key=lambda fit: (len(fit.names) - len(fit.differing), len(fit.names), fit.prefix))]


def _plainness(fit: Fit) -> tuple[object, ...]:
    first = fit.prefix.partition(".")[0]
    return fit.averaged, _USUAL.index(first) if first in _USUAL else len(_USUAL), len(fit.prefix), fit.prefix


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _common_prefixes(expected: Shapes) -> list[str]:
    """List the prefixes of all the network's names: a network in a wrapping may have been saved without it."""
    prefixes, shared = [""], list(expected)
    while shared and len(tops := {name.partition(".")[0] for name in shared}) == 1 and "." in shared[0]:
        top = f"{tops.pop()}."
        prefixes.append(prefixes[-1] + top)
        shared = [name.removeprefix(top) for name in shared]
    return prefixes


def _prefixes(clean: Iterable[str], wanted: set[str]) -> list[str]:
    """List the prefixes below which the file has at least half as many of the wanted names as below the best.

    Of more than `_MOST_PREFIXES` those with the most such names, the first of the file first.
    """
    found: Counter[str] = Counter()
    shallow = {""}
    for name in clean:
        parts = name.split(".")
        shallow.update(f"{'.'.join(parts[:depth])}." for depth in range(1, min(3, len(parts))))
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in wanted:
                found["".join(f"{part}." for part in parts[:depth])] += 1
    most = max(found.values(), default=0)
    if most and 2 * most >= len(wanted):
        return [prefix for prefix, count in found.most_common(_MOST_PREFIXES) if 2 * count >= most]
    return sorted({*found, *shallow}, key=lambda prefix: (len(prefix), prefix))[:_MOST_PREFIXES]  # the order may fit


def _fit(clean: Mapping[str, str], given: Shapes, expected: Shapes, *, prefix: str, inner: str) -> Fit:
    inside = {name.removeprefix(prefix): file for name, file in clean.items() if name.startswith(prefix)}
    names = {name: inside[own] for name in expected if (own := name.removeprefix(inner)) in inside}
    used = set(names.values())
    lacking = [name for name in expected if name not in names and not is_counter(name)]
    left = {own: file for own, file in inside.items() if file not in used and not is_counter(own)}
    for find in (_same_without_numbers, _same_in_order):
        pairs = find(lacking, left, given, expected, inner)
        names |= {name: left.pop(own) for name, own in pairs.items()}
        lacking = [name for name in lacking if name not in names]
    tops = {name.removeprefix(inner).partition(".")[0] for name in expected}
    numbered = any(top.isdecimal() for top in tops)
    surplus = {
        file for own, file in left.items() if (top := own.partition(".")[0]) in tops or (numbered and top.isdecimal())
    }
    used = {*names.values(), *surplus}
    return Fit(
        prefix=prefix,
        names=names,
        missing=tuple(lacking),
        differing=tuple(name for name, file in names.items() if given[file] != expected[name]),
        surplus=tuple(sorted(surplus)),
        extras=tuple(sorted(file for file in given if file not in used and not is_counter(file))),
    )


def is_counter(name: str) -> bool:
    """Return whether a tensor of this name counts steps, and is not needed."""
    return name.rpartition(".")[2] in _COUNTERS


def _same_without_numbers(
    lacking: list[str], left: Mapping[str, str], given: Shapes, expected: Shapes, inner: str
) -> dict[str, str]:
    """Pair names that are alike but for numbers, as `fc` and `fc.1` are: a layer that was put into a Sequential."""

    def only(names: Iterable[str]) -> dict[str, str]:
        by_words: dict[str, list[str]] = {}
        for name in names:
            words = ".".join(part for part in name.removeprefix(inner).split(".") if not part.isdecimal())
            by_words.setdefault(words, []).append(name)
        return {words: alike[0] for words, alike in by_words.items() if len(alike) == 1}

    ours, theirs = only(lacking), only(left)
    return {
        name: theirs[words]
        for words, name in ours.items()
        if words in theirs and len(given[left[theirs[words]]]) == len(expected[name])
    }


def _same_in_order(
    lacking: list[str], left: Mapping[str, str], given: Shapes, expected: Shapes, inner: str
) -> dict[str, str]:
    """Pair what is left by its order, where every last word and every shape is the same: layers with other names."""
    ours = [(name.rpartition(".")[2], expected[name]) for name in lacking]
    kinds = set(ours)
    alike = [own for own, file in left.items() if (own.rpartition(".")[2], given[file]) in kinds]
    theirs = [(own.rpartition(".")[2], given[left[own]]) for own in alike]
    return dict(zip(lacking, alike, strict=True)) if ours == theirs else {}


def describe_misfit(fit: Fit, given: Shapes, expected: Shapes, *, num_classes: int) -> tuple[str, str]:
    """Return what differs between a file's weights and a network, and the advice that follows from it.

    Args:
        fit: not whole.
        num_classes: that the network tells apart.
    """
    counted = sum(not is_counter(name) for name in expected)
    missing, surplus = fit.missing, fit.surplus
    same = len(fit.names) - len(fit.differing)
    if fit.differing and not missing and not surplus:
        pairs = [(given[fit.names[name]], expected[name]) for name in fit.differing]
        others = {have[:1] for have, want in pairs if have[1:] == want[1:] and want[:1] == (num_classes,)}
        if len(others) == 1 and all(have[1:] == want[1:] and want[:1] == (num_classes,) for have, want in pairs):
            ((number,),) = others
            told = f"tells {number} classes apart and the dataset has {num_classes}"
            return told, "fine-tune it on these classes first"
        name, (have, want) = fit.differing[0], pairs[0]
        told = f"{name} is {have} in the file and {want} in the network ({len(pairs)} of {counted} differ)"
        return f"is of another width: {told}", "check teacher.width and teacher.architecture"
    if 2 * same < counted:
        held = ", ".join(list(given)[:3]) or "no tensor"
        return (
            f"holds nothing that fits ({counted - same} of the network's {counted} tensors are missing; it has {held})",
            "set teacher.architecture to the network it was saved from",
        )
    parts = [f"it lacks {missing[0]}"] if missing else []
    parts += [f"it has {surplus[0]} more"] if surplus else []
    parts += [f"{len(missing)} of {counted} are missing, {len(surplus)} too many"]
    *_, head = (name.partition(".")[0] for name in expected)
    own = {name.removeprefix(fit.prefix).partition(".")[0] for name in surplus}
    if {name.partition(".")[0] for name in missing} | own == {head}:
        return (
            f"has another head ({'; '.join(parts)})",
            "build that network in a function of yours, teacher.architecture: module:function",
        )
    return f"is of another architecture ({'; '.join(parts)})", "set teacher.architecture to the one it was saved from"
