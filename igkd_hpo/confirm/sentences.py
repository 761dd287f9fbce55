"""A confirmation in plain sentences and as a table for people."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from igkd_hpo.confirm.confirmation import Answer, Confirmation, ConfirmedArm
from igkd_hpo.confirm.statistics import Estimate
from igkd_hpo.words import percent

if TYPE_CHECKING:
    from rich.console import RenderableType

_PARTS = {"ig": "IG", "kd": "KD", "both": "IG and KD together"}
_ROUNDING = 0.0005  # less does not show in per cent with one digit
_USES = {"ig": "IG", "kd": "distillation", "both": "IG and distillation"}


def confirmation_json(found: Confirmation) -> dict[str, Any]:
    """Return the confirmation as plain JSON values, what it says in words included; accuracies are fractions."""
    return found.as_json() | {"sentences": list(sentences(found))}


def sentences(found: Confirmation) -> Iterator[str]:
    """Say the answer first, then what helps, then how far to trust it."""
    yield _which_is_best(found)
    for answer in found.answers:
        yield _does_it_help(found, answer)
    if found.baseline is not None and found.gain is not None and found.shrunken_gain is not None:
        yield (
            f"Against plain training with the settings of {found.subject_name}, {found.arm(found.best).name} gains "
            f"{_points(found.gain)} points; without the luck of the seeds, {_points(found.shrunken_gain)}."
        )
    subject = next((arm for arm in found.arms if arm.number == found.subject), None)
    if subject is not None and subject.search_accuracy is not None:
        luck = subject.search_accuracy - subject.validation.mean.value
        yield (
            f"The search saw {percent(subject.search_accuracy)} on validation for {subject.name}; fresh seeds have "
            f"{percent(subject.validation.mean.value)}"
            + (f": {100 * luck:.1f} points of it were luck." if luck >= _ROUNDING else ", no less.")
        )
    for arm in found.arms:
        if arm.diverged:
            yield f"The loss of {arm.name} was not finite with {arm.diverged} seeds, so it is compared with none."
    share = found.arm(found.best).test.mean.value
    sampling = 2 * (share * (1 - share) / found.n_test_images) ** 0.5
    yield (
        f"Intervals are about the luck of {found.n_seeds} seeds. The {found.n_test_images:,} test images are a sample "
        f"too: another one could move all accuracies together by {100 * sampling:.1f} points."
    )


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """An arm as a row of text; accuracies and differences are in per cent, with the reach of their intervals.

    Args:
        remark: best, tied, smallest (of those that are tied), or how many seeds diverged.
        difference, p: to the best; empty for the best itself and for an arm that is not compared.
    """

    name: str
    seeds: str
    test: str
    validation: str
    difference: str
    p: str
    parameters: str
    remark: str


def arm_rows(found: Confirmation) -> list[ArmRow]:
    """Return a row for each arm, the highest mean on the test split first."""
    rows = []
    for arm in sorted(found.arms, key=lambda arm: -arm.test.mean.value):
        against = None if arm.number == found.best else arm.against
        rows.append(
            ArmRow(
                name=" = ".join(arm.names),
                seeds=str(len(arm.seeds)),
                test=_with_interval(arm.test.mean, sign=""),
                validation=f"{100 * arm.validation.mean.value:.2f}",
                difference="" if against is None else _with_interval(against.difference, sign="+"),
                p="" if against is None else p_value(against.p_value),
                parameters="" if arm.parameters is None else f"{arm.parameters:,}",
                remark=_remark(found, arm),
            )
        )
    return rows


def confirmation_table(found: Confirmation) -> "RenderableType":
    """Lay out the arms as a table for a terminal of 80 columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("arm", min_width=12)
    for heading in ("n", "test %", "val. %", "to the best", "p", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in arm_rows(found):
        name, *others = vars(row).values()
        table.add_row(Text(name), *others)
    return table


def p_value(p: float) -> str:
    """Write a p-value for people: 0.03, < 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _which_is_best(found: Confirmation) -> str:
    best = found.arm(found.best)
    mean = f"{percent(best.test.mean.value)} on test ({percent(best.test.mean.low)} to {percent(best.test.mean.high)})"
    if found.named:
        return (
            f"{best.name} is the best of {len(found.arms)}: {mean}, and the next one is significantly worse "
            f"(p = {p_value(found.runner_up_p_value)})."
        )
    if len(found.tie_set) == 1:
        return f"{best.name} has {mean}; there was nothing to compare it with."
    tied = [found.arm(number) for number in found.tie_set]
    named = ", ".join(arm.name for arm in tied)
    equal = f"These {len(tied)} of {len(found.arms)} are equal, as far as {found.n_seeds} seeds can tell: {named}"
    chosen = found.arm(found.chosen)
    if len({arm.parameters for arm in tied}) == 1:
        return f"{equal}. They are equally large; {best.name} has the highest mean, {mean}."
    return (
        f"{equal}. {best.name} has the highest mean, {mean}; {chosen.name} is the smallest, with "
        f"{chosen.parameters:,} parameters and {percent(chosen.test.mean.value)}."
    )


def _does_it_help(found: Confirmation, answer: Answer) -> str:
    part, subject = _PARTS[answer.question], found.subject_name
    if answer.verdict == "untested":
        return f"{part}: nothing can be said, because an arm diverged or was not trained."
    if answer.contrast is None:
        return f"{part}: nothing can be said, because {subject} does without {_USES[answer.question]}."
    contrast = answer.contrast
    numbers = (
        f"{_points(contrast.difference.value)} points on test "
        f"({_points(contrast.difference.low)} to {_points(contrast.difference.high)}), p = {p_value(contrast.p_value)}"
    )
    verb = "help" if answer.question == "both" else "helps"
    if answer.verdict == "helps":
        return f"{part} {verb} {subject} on this data: it gains {numbers}."
    if answer.verdict == "hurts":
        return f"{part} {verb.replace('help', 'hurt')} {subject} on this data: it changes by {numbers}."
    return (
        f"Whether {part} {verb} {subject} on this data cannot be told: {numbers}; with {found.n_seeds} seeds only a "
        f"difference of about {100 * contrast.detectable:.1f} points would be found."
    )


def _remark(found: Confirmation, arm: ConfirmedArm) -> str:
    if arm.diverged:
        return f"{arm.diverged} diverged"
    if arm.number == found.best:
        return "best"
    return "" if not arm.tied else "smallest" if arm.number == found.chosen else "tied"


def _with_interval(mean: Estimate, *, sign: str) -> str:
    return f"{100 * mean.value:{sign}.2f} ± {100 * (mean.high - mean.value):.2f}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"
