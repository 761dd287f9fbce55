"""Sentences and a table that tell people how much of the teacher's reasons the students kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from igkd_hpo.confirmation.confirmation import Confirmation
from igkd_hpo.confirmation.explanations import CEILINGS, Agreement, ExplainedArm, Explanations
from igkd_hpo.confirmation.statistics import Estimate
from igkd_hpo.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, kw_only=True)
class ReasonsRow:
    """Row of text about an arm, a floor or the ceiling; a figure that it does not have is empty.

    Args:
        deletion, insertion: the area, and in brackets that of pixels in random order.
    """

    name: str
    correlation: str
    overlap: str
    deletion: str = ""
    insertion: str = ""
    sensitivity: str = ""


HEADINGS = ("rank correlation", "top 10 %", "deletion", "insertion", "sensitivity")
"""Of the columns of a `ReasonsRow` after its name."""


def verdict_on_reasons(confirmation: Confirmation) -> str:
    """Say in one sentence whether IG keeps the teacher's reasons; there must be explanations."""
    found, subject = confirmation.explanations, confirmation.subject_name
    assert found is not None, "explanations were made"
    own = [arm.hyperparameters for arm in confirmation.arms if arm.number == confirmation.subject]
    weights = {"overlay_probability": "overlays", "attribution_weight": "attribution matching"}
    used = " and ".join(word for name, word in weights.items() for values in own if values[name])
    ig, reasons = f"IG ({used})" if used else "IG", "the teacher's reasons"
    if found.verdict == "absent":
        return f"Whether IG keeps {reasons}: nothing can be said, because {subject} does without IG."
    difference = found.difference
    if found.verdict == "untested" or difference is None:
        return f"Whether {ig} keeps {reasons}: nothing can be said, because an arm diverged or was not trained."
    moved = f"{difference.value:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
    arms = [found.arm(number) for number in (found.subject, found.without)]
    means = " against ".join(f"{arm.agreement.correlation.value:.2f}" for arm in arms if arm is not None)
    basis = f"rank correlation with the teacher's maps {means} without IG, {moved}"
    if found.verdict == "unknown":
        return f"Whether {ig} keeps {reasons} in {subject} cannot be told: {basis}; the interval includes 0."
    if found.verdict == "keeps":
        return f"{ig} keeps more of {reasons} in {subject}: {basis}."
    return f"{ig} loses {reasons} in {subject}: {basis}."


def verdict_on_training(found: Explanations) -> str:
    """Say in one sentence whether students agree with the teacher's maps more than untrained networks do."""
    names: dict[str, list[str]] = {"above": [], "below": [], "unknown": []}
    for arm in found.arms:
        names[found.against_untrained(arm)].append(arm.name)
    above, below, unknown = (", ".join(some) for some in names.values())
    parts = [
        f"those of {above} agree more" if above else "",
        f"those of {below} agree less" if below else "",
        f"those of {unknown} cannot be told from them" if unknown else "",
    ]
    floor = _interval(found.untrained.correlation)
    said = "; ".join(filter(None, parts))
    return f"Maps of networks with random weights agree with the teacher's to {floor} (rank correlation): {said}."


def explanations_in_words(confirmation: Confirmation) -> Iterator[str]:
    """Say between which floor and ceiling the maps of the search's best and of export's choice lie, and what n is."""
    found = confirmation.explanations
    if found is None:
        return
    for arm in dict.fromkeys((found.arms[0], found.arm(confirmation.chosen))):
        if arm is not None:
            yield _place(found, arm)
    yield _basis(found)


def reasons_of_chosen(confirmation: Confirmation | None) -> tuple[str, ...]:
    """Return the verdict, and the sentences on the arm that export takes; none where nobody asked."""
    if confirmation is None or confirmation.explanations is None:
        return ()
    found = confirmation.explanations
    arm = found.arm(confirmation.chosen)
    about = () if arm is None else (verdict_on_training(found), _place(found, arm), _basis(found))
    return (verdict_on_reasons(confirmation), *about)


def _place(found: Explanations, arm: ExplainedArm) -> str:
    floors = [f"{of.correlation.value:.2f} ({name.removeprefix('floor: ')})" for name, of in found.floors]
    above = "there is no ceiling: one teacher, which was trained on one view of each image"
    if found.ceiling is not None and found.ceiling_of is not None:
        above = f"the ceiling is {_interval(found.ceiling.correlation)}, {CEILINGS[found.ceiling_of]}"
    return (
        f"The maps of {arm.name} agree with the teacher's to {_interval(arm.agreement.correlation)} (rank "
        f"correlation); the floor is {' and '.join(floors)}, and {above}."
    )


def _basis(found: Explanations) -> str:
    seeds = counted(len(found.arms[0].trials), "seed")
    images = counted(found.n_images, "validation image")
    return (
        f"Means over {images}, all of which the teacher gets right, and {seeds}; intervals are 95 % and about both. "
        f"The class explained is the true one, with {found.n_steps} steps of Integrated Gradients. Deletion: small is "
        "good. Insertion: large is good. In brackets: pixels in random order. Sensitivity: how far noise of 2 % moves "
        f"a map, on {found.n_sensitivity} of the images; small is good."
    )


def reasons_rows(found: Explanations) -> Iterator[ReasonsRow]:
    """Return a row for the ceiling, one for each arm, and one for each floor."""
    if found.ceiling is not None and found.ceiling_of is not None:
        yield _reference(f"ceiling: {CEILINGS[found.ceiling_of]}", found.ceiling)
    for arm in found.arms:
        yield ReasonsRow(
            name=arm.name,
            correlation=_with_reach(arm.agreement.correlation),
            overlap=_with_reach(arm.agreement.overlap),
            deletion=f"{_with_reach(arm.deletion)} ({arm.deletion_by_lot.value:.2f})",
            insertion=f"{_with_reach(arm.insertion)} ({arm.insertion_by_lot.value:.2f})",
            sensitivity="" if arm.sensitivity is None else _with_reach(arm.sensitivity),
        )
    for name, floor in found.floors:
        yield _reference(name, floor)


def explanations_table(found: Explanations) -> "RenderableType":
    """Lay out the figures as a table for a terminal of 80 columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("maps of", min_width=12)
    for heading in HEADINGS:
        table.add_column(heading.replace(" ", "\n", 1), justify="right")
    for row in reasons_rows(found):
        name, *others = vars(row).values()
        table.add_row(Text(name), *(text.replace(" (", "\n(") for text in others))
    return table


def _reference(name: str, agreement: Agreement) -> ReasonsRow:
    return ReasonsRow(name=name, correlation=_with_reach(agreement.correlation), overlap=_with_reach(agreement.overlap))


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _with_reach(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ± {estimate.reach:.2f}"
