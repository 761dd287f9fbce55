"""The text of a first study: YAML in which each line says why."""

from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from igkd_hpo.escaping import one_line
from igkd_hpo.starting.choice import Choice
from igkd_hpo.starting.images import ImageFacts
from igkd_hpo.starting.networks import Machine
from igkd_hpo.words import counted, rough_duration

_WIDE = 1_000_000  # columns, so that nothing is folded


def write_choice(choice: Choice, images: ImageFacts, machine: Machine) -> str:
    """Write a study as a file that `read_study` reads to the same study, a comment at the end of each line."""
    seen = f"{counted(images.n_images, 'image')}, sides from {images.smallest} to {images.largest} pixels"
    seen += ", grey" if images.grey == 1 else f", {images.grey:.0%} of them grey" if images.grey else ", in colour"
    seen += f"; {images.not_read}" if images.not_read else ""
    parts = ", ".join(f"{name} {rough_duration(seconds)}" for name, seconds in choice.budget.seconds.items() if seconds)
    measured = "as measured then, with others on it" if machine.is_busy else "as measured then"
    about = f"About {rough_duration(choice.budget.total)} on {machine.shown}, {measured}, one trial at a time"
    header = [
        "Written by igkd-hpo init, from a look at the images and timed steps of networks. Change what you know better.",
        seen,
        f"{about}, some stopped early: {parts}.",
    ]
    lines = [f"# {one_line(text)}" for text in header]
    return "\n".join([*lines, *_lines(choice.document, choice.reasons, "", "")]) + "\n"


def _lines(document: Mapping[str, Any], reasons: Mapping[str, str], prefix: str, indent: str) -> Iterator[str]:
    for key, value in document.items():
        path = f"{prefix}{key}"
        section = isinstance(value, Mapping) and "type" not in value
        text = f"{key}:" if section else _flow(key, value)
        yield f"{indent}{text}  # {one_line(reasons[path])}"
        if section:
            yield from _lines(value, reasons, f"{path}.", f"{indent}  ")


def _flow(key: str, value: Any) -> str:
    yaml = YAML()
    yaml.default_flow_style = True
    yaml.width = _WIDE
    buffer = StringIO()
    yaml.dump({key: value}, buffer)
    return buffer.getvalue().strip()[1:-1]
