"""Lines of text on a network's classes: the worst of them, which a reader of a thousand looks for."""

from typing import NamedTuple

from igkd_hpo.distillation.class_table import ClassTable
from igkd_hpo.words import percent

MOST_LINES = 10
_LONGEST_NAME = 24


class ClassRow(NamedTuple):
    """Cells of a class, as text: its name, its images in the split, recall, precision, what it is taken for most."""

    name: str
    images: str
    recall: str
    precision: str
    taken_for: str


def class_rows(table: ClassTable, most: int) -> list[ClassRow]:
    """Return a row for each of the `most` worst classes."""
    return [
        ClassRow(
            name=one.name,
            images=f"{one.images // table.runs:,}",
            recall=percent(one.recall),
            precision="never" if one.precision is None else percent(one.precision),
            taken_for=one.mistaken_for or "",
        )
        for one in table.worst[:most]
    ]


def title(table: ClassTable, split: str, most: int) -> str:
    """Say which classes a table of the `most` worst shows, and of what."""
    shown = min(most, len(table.worst))
    which = f"the {table.count} classes" if shown == table.count else f"the {shown} worst of {table.count} classes"
    of_runs = f", {table.runs} seeds together" if table.runs > 1 else ""
    return f"{which} on {split}{of_runs}"


def class_lines(table: ClassTable, split: str) -> list[str]:
    """Lay out a title, headings and a line for each of the worst classes, long names cut."""
    rows = [ClassRow("class", "images", "recall", "precision", "taken for most"), *class_rows(table, MOST_LINES)]
    cut = [row._replace(name=_cut(row.name), taken_for=_cut(row.taken_for)) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cut, strict=True)]
    lines = [f"{title(table, split, MOST_LINES)}:"]
    for name, *numbers, taken_for in cut:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=False)]
        lines.append("  ".join(["", f"{name:<{widths[0]}}", *cells, taken_for]).rstrip())
    return lines


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
