"""Sentences and tables that tell people about a ladder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from igkd_hpo.compression.ladder import Ladder, Rise, Step
from igkd_hpo.compression.plan import DISTILLED, PLAIN_KIND
from igkd_hpo.compression.rung import student_in_words
from igkd_hpo.config.space import Value, shown
from igkd_hpo.confirmation.sentences import name_p_value
from igkd_hpo.confirmation.statistics import Estimate
from igkd_hpo.words import counted, points, times

if TYPE_CHECKING:
    from rich.console import RenderableType

_VERDICTS = {
    "helps": "Distillation helps at {}.",
    "hurts": "Distillation hurts at {}.",
    "unknown": "Whether distillation helps cannot be told at {} times.",
    "untested": "Nothing can be said of distillation at {} times, where a loss was not finite.",
}
_MILLION = 1e6


def ladder_json(ladder: Ladder) -> dict[str, Any]:
    """Return the ladder as plain JSON values, what it says in words included; accuracies are fractions."""
    return ladder.as_json() | {"sentences": list(sentences(ladder))}


def sentences(ladder: Ladder) -> Iterator[str]:
    """Say where distillation helps, where a smaller student is better, what is left out, and how far to trust it."""
    for verdict, text in _VERDICTS.items():
        steps = [step for step in ladder.steps if step.verdict == verdict]
        if steps:
            yield text.format(_at(steps))
    for rise in ladder.rises:
        yield _say_rise(rise)
    for arm in ladder.arms:
        if arm.diverged:
            seeds = counted(arm.diverged, "seed")
            yield f"The loss of {arm.name} was not finite with {seeds}, so it is compared with none."
    for rung in ladder.left_out:
        yield f"{rung.title} is left out: {rung.left_out}."
    whose = f"trial {ladder.trial}" if ladder.trial is not None else f"the file {ladder.study}"
    yield (
        f"All students have the settings of {whose} and {ladder.n_seeds} seeds; plain ones are without all that the "
        f"teacher gives. Intervals are about the luck of seeds; another sample of {ladder.n_test_images:,} test images "
        f"could move all figures together by {points(2 * ladder.sampling_error, signed=False)} points."
    )


def _at(steps: list[Step]) -> str:
    texts = [_with_gain(step) for step in steps]
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _with_gain(step: Step) -> str:
    if step.gain is None or step.verdict == "unknown":
        return times(step.reached)
    found, significance = step.gain.difference, name_p_value(step.gain.p_value)
    interval = f"{points(found.low)} to {points(found.high)}"
    return f"{times(step.reached)} times ({points(found.value)} points, {interval}, {significance})"


def _say_rise(rise: Rise) -> str:
    found, significance = rise.contrast.difference, name_p_value(rise.contrast.p_value)
    difference = f"{points(found.value)} points ({points(found.low)} to {points(found.high)}, {significance})"
    return (
        f"Of the {rise.kind} students a smaller one is better than a larger one: {times(rise.smaller)} times "
        f"has {difference} over {times(rise.larger)} times."
    )


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """Row of text about a rung; accuracies and the gain are in per cent, with the reach of their intervals.

    Args:
        asked, reached: compression factors.
        gain: distilled minus plain; empty where they are not compared.
        int8: int8 minus float on validation images; empty where it was not measured.
        memory: of one image's activations in int8, the most at once, in KiB.
    """

    asked: str
    reached: str
    student: str
    parameters: str
    macs: str
    latency: str
    memory: str
    plain: str
    distilled: str
    gain: str
    int8: str
    verdict: str


def step_rows(ladder: Ladder) -> list[StepRow]:
    """Return a row for each rung, the largest student first."""
    return [
        StepRow(
            asked=f"{step.asked:,g}",
            reached=times(step.reached),
            student=student_in_words(step.student),
            parameters=_number(step.cost["parameters"], "{:,}"),
            macs=_number(step.cost["macs"] and step.cost["macs"] / _MILLION, "{:,.3g}"),
            latency=_number(step.cost["latency_ms"], "{:.2f}"),
            memory=_number(step.cost["peak_ram_kb"], "{:,.1f}"),
            plain=_mean(step, PLAIN_KIND),
            distilled=_mean(step, DISTILLED),
            gain="" if step.gain is None else _with_reach(step.gain.difference, sign="+"),
            int8="" if step.int8 is None else _with_reach(step.int8, sign="+"),
            verdict=step.verdict,
        )
        for step in ladder.steps
    ]


def ladder_table(ladder: Ladder) -> "RenderableType":
    """Lay out the rungs as a table for a terminal of 80 columns; figures are of the study's metric, on test.

    Of the students' architecture and knobs those are shown that differ.
    """
    from rich.table import Table
    from rich.text import Text

    told = list(dict.fromkeys(name for step in ladder.steps for name in step.student))
    knobs = [name for name in told if len({step.student.get(name) for step in ladder.steps}) > 1]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("asked", "times"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in knobs:
        table.add_column(name.replace("_", " "), justify="right", max_width=16, overflow="fold")
    libraries = {str(step.student["architecture"]).partition("/")[0] for step in ladder.steps}
    library = f"{libraries.pop()}/" if len(libraries) == 1 else ""
    rows = step_rows(ladder)
    in_int8 = any(row.int8 for row in rows)
    for heading in ("params", "Mmacs", "ms", "plain %", "distilled %", "gain", *(["int8"] if in_int8 else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for step, row in zip(ladder.steps, rows, strict=True):
        student = [Text(_short(name, step.student[name], library) if name in step.student else "") for name in knobs]
        figures = (row.parameters, row.macs, row.latency, row.plain, row.distilled, row.gain)
        table.add_row(row.asked, row.reached, *student, *figures, *([row.int8] if in_int8 else []))
    return table


def _short(name: str, value: Value, library: str) -> str:
    """Write a knob's value, and an architecture without the library that all are of."""
    return str(value).removeprefix(library) if name == "architecture" else shown(value)


def _mean(step: Step, kind: str) -> str:
    arm = step.arm(kind)
    return "" if arm is None else _with_reach(arm.test.mean, sign="")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _with_reach(mean: Estimate, *, sign: str) -> str:
    return f"{100 * mean.value:{sign}.1f} ± {100 * mean.reach:.1f}"
