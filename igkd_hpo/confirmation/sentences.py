"""Sentences and tables that tell people about a confirmation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from igkd_hpo.confirmation.confirmation import Answer, Confirmation, ConfirmedArm, ControlAnswer
from igkd_hpo.confirmation.explanation_sentences import verdict_on_reasons, verdict_on_training
from igkd_hpo.confirmation.statistics import Estimate
from igkd_hpo.confirmation.steps import StepUp
from igkd_hpo.distillation.metrics import METRICS, measured
from igkd_hpo.search.class_lines import class_lines
from igkd_hpo.words import parameters, percent, points

if TYPE_CHECKING:
    from rich.console import RenderableType

_PARTS = {"ig": "IG", "kd": "KD", "both": "IG and KD together"}
_CONTROLS = {"student": "plain training", "paper": "the paper's settings"}
_NOTHING_YET = "Nothing can be told yet, more --seeds or epochs are needed"
_ROUNDING = 0.0005  # less does not show in per cent with one digit
_USES = {"ig": "IG", "kd": "distillation", "both": "IG and distillation"}


def confirmation_json(confirmation: Confirmation) -> dict[str, Any]:
    """Return the confirmation as plain JSON values, what it says in words included; accuracies are fractions."""
    return confirmation.as_json() | {"sentences": list(sentences(confirmation))}


def sentences(confirmation: Confirmation) -> Iterator[str]:
    """Say the answer first, then what helps, then how far to trust it."""
    best = confirmation.arm(confirmation.best)
    yield _name_best(confirmation, best)
    for answer in confirmation.answers:
        yield _say_whether_it_helps(confirmation, answer)
    if confirmation.controls:
        yield _say_what_it_beats(confirmation)
    for step in confirmation.steps:
        yield _say_what_it_buys(confirmation, step)
    if confirmation.gain is not None and confirmation.shrunken_gain is not None:
        yield (
            f"Against plain training with the settings of {confirmation.subject_name}, {best.name} gains "
            f"{points(confirmation.gain)} points; without the luck of the seeds, "
            f"{points(confirmation.shrunken_gain)}."
        )
    subject = next((arm for arm in confirmation.arms if arm.number == confirmation.subject), None)
    if subject is not None and subject.search_accuracy is not None:
        luck = subject.search_accuracy - subject.validation.mean.value
        seen = measured(subject.search_accuracy, confirmation.metric)
        yield (
            f"The search saw {seen} on validation for {subject.name}; fresh seeds have "
            f"{percent(subject.validation.mean.value)}"
            + (f": {points(luck, signed=False)} points of it were luck." if luck >= _ROUNDING else ", no less.")
        )
    if confirmation.explanations is not None:
        yield verdict_on_reasons(confirmation)
        yield verdict_on_training(confirmation.explanations)
    for arm in confirmation.arms:
        if arm.diverged:
            yield f"The loss of {arm.name} was not finite with {arm.diverged} seeds, so it is compared with none."
    n_images, sampling = confirmation.n_test_images, 2 * confirmation.sampling_error
    results = "accuracies" if confirmation.metric == "accuracy" else f"values of {METRICS[confirmation.metric]}"
    yield (
        f"Intervals are about the luck of {confirmation.n_seeds} seeds. The {n_images:,} test images are a sample "
        f"too: another one could move all {results} together by {points(sampling, signed=False)} points."
    )


def classes_in_words(confirmation: Confirmation) -> list[str]:
    """Lay out what becomes of each class with the arm that export takes; nothing where that was not recorded."""
    if confirmation.classes is None:
        return []
    return class_lines(confirmation.classes, f"test with {confirmation.arm(confirmation.chosen).name}")


def headline(confirmation: Confirmation) -> str:
    """Say in a line which arm export takes, or that nothing can be told yet; and how far to trust it."""
    chosen, n_tied = confirmation.arm(confirmation.chosen), len(confirmation.tie_set)
    if confirmation.inconclusive:
        return f"{_NOTHING_YET}: {_what_is_open(confirmation)}. For now, export takes {chosen.name}."
    if confirmation.named:
        return f"Take {chosen.name}: it is the best, confirmed with fresh seeds."
    if n_tied == 1:
        return f"Take {chosen.name}: confirmed with fresh seeds."
    which = "the highest mean" if confirmation.chosen == confirmation.best else "the smallest"
    return (
        f"Take {chosen.name}: {which} of {n_tied} that cannot be told apart with {confirmation.n_seeds} fresh seeds, "
        f"though {_what_is_open(confirmation)}."
    )


def _what_is_open(confirmation: Confirmation) -> str:
    """Say what the seeds leave open: the difference that would be found, and whether it may be all guesses."""
    chosen, found = confirmation.arm(confirmation.chosen), confirmation.detectable
    parts = [] if found is None else [only_found(found)]
    if confirmation.at_chance:
        assert confirmation.guessing is not None, "it is known, for the interval reaches it"
        guessed = measured(confirmation.guessing, confirmation.metric)
        parts.append(f"{chosen.name} may do no better than always guessing ({guessed})")
    return ", and ".join(parts)


def only_found(detectable: float) -> str:
    """Say how large a difference must be to be found; a fraction."""
    if detectable >= 1:
        return "no difference would be found"
    return f"only a difference of about {points(detectable, signed=False)} points would be found"


def short_answer(confirmation: Confirmation) -> Iterator[str]:
    """Say in a few lines what export takes and why, and what of it helps; `sentences` has the rest."""
    chosen = confirmation.arm(confirmation.chosen)
    mean, n_images = chosen.test.mean, confirmation.n_test_images
    reached = measured(mean.value, confirmation.metric)
    take = f"{_NOTHING_YET.lower()}; for now" if confirmation.inconclusive else "take"
    yield (
        f"{confirmation.study}: {take} {chosen.name}, {reached} on {n_images:,} test images "
        f"({percent(mean.low)} to {percent(mean.high)}), the mean of {len(chosen.seeds)} fresh seeds"
    )
    yield f"  why: {_why_chosen(confirmation)}"
    words = {"helps": "helps", "hurts": "hurts", "unknown": "cannot be told"}
    for answer in confirmation.answers:
        if answer.contrast is not None:
            numbers = _in_points(answer.contrast.difference)
            yield f"  {_PARTS[answer.question]} in {confirmation.subject_name}: {words[answer.verdict]}, {numbers}"
    yield f"  `igkd-hpo export {confirmation.study}` writes it; `igkd-hpo report {confirmation.study}` has the rest"


def _why_chosen(confirmation: Confirmation) -> str:
    n_arms, n_tied = len(confirmation.arms), len(confirmation.tie_set)
    if confirmation.named:
        significance = name_p_value(confirmation.runner_up_p_value)
        return f"the best of {n_arms}; the next one is significantly worse ({significance})"
    if n_tied == 1:
        return _what_is_open(confirmation) if confirmation.inconclusive else "there was nothing to compare it with"
    equal = (
        f"{n_tied} of {n_arms} cannot be told apart with {confirmation.n_seeds} seeds: {_what_is_open(confirmation)}"
    )
    if confirmation.chosen == confirmation.best:
        return f"{equal}; it has the highest mean, and none of them is smaller"
    return f"{equal}; it is the smallest of them"


def _in_points(difference: Estimate) -> str:
    return f"{points(difference.value)} points on test ({points(difference.low)} to {points(difference.high)})"


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """Row of text about an arm; accuracies and differences are in per cent, with the reach of their intervals.

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


def arm_rows(confirmation: Confirmation) -> list[ArmRow]:
    """Return a row for each arm, the highest mean on the test split first."""
    rows = []
    remarks = dict.fromkeys(confirmation.tie_set, "tied")
    remarks |= {confirmation.chosen: "smallest", confirmation.best: "best"}
    for arm in sorted(confirmation.arms, key=lambda arm: -arm.test.mean.value):
        against = None if arm.number == confirmation.best else arm.against
        rows.append(
            ArmRow(
                name=" = ".join(arm.names),
                seeds=str(len(arm.seeds)),
                test=_with_interval(arm.test.mean, sign=""),
                validation=f"{100 * arm.validation.mean.value:.2f}",
                difference="" if against is None else _with_interval(against.difference, sign="+"),
                p="" if against is None else p_value(against.p_value),
                parameters="" if arm.parameters is None else f"{arm.parameters:,}",
                remark=f"{arm.diverged} diverged" if arm.diverged else remarks.get(arm.number, ""),
            )
        )
    return rows


def confirmation_table(confirmation: Confirmation) -> "RenderableType":
    """Lay out the arms as a table for a terminal of 80 columns; figures are of the study's metric."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("arm", min_width=12)
    for heading in ("n", "test %", "val. %", "to the best", "p", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in arm_rows(confirmation):
        name, *others = vars(row).values()
        table.add_row(Text(name), *others)
    return table


def p_value(p: float) -> str:
    """Write a p-value for people: 0.03, < 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def name_p_value(p: float) -> str:
    """Write a p-value in a sentence: p = 0.03, p < 0.001."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def _name_best(confirmation: Confirmation, best: ConfirmedArm) -> str:
    found = best.test.mean
    mean = f"{measured(found.value, confirmation.metric)} on test ({percent(found.low)} to {percent(found.high)})"
    n_arms = len(confirmation.arms)
    if confirmation.named:
        return (
            f"{best.name} is the best of {n_arms}: {mean}, and the next one is significantly worse "
            f"({name_p_value(confirmation.runner_up_p_value)})."
        )
    tied, chosen = [confirmation.arm(number) for number in confirmation.tie_set], confirmation.arm(confirmation.chosen)
    if len(tied) == 1:
        alone = f"{best.name} has {mean}; there was nothing to compare it with."
        return f"{headline(confirmation)} {alone}" if confirmation.inconclusive else alone
    names = ", ".join(arm.name for arm in tied)
    equal = (
        f"{f'{_NOTHING_YET}. ' if confirmation.inconclusive else ''}These {len(tied)} of {n_arms} cannot be told apart "
        f"with {confirmation.n_seeds} seeds: {names}. In this tie {_what_is_open(confirmation)}"
    )
    if len({arm.parameters for arm in tied}) == 1:
        return f"{equal}. They are equally large; {best.name} has the highest mean, {mean}."
    return (
        f"{equal}. {best.name} has the highest mean, {mean}; {chosen.name} is the smallest, with "
        f"{parameters(chosen.parameters or 0)} and {percent(chosen.test.mean.value)}."
    )


def _say_whether_it_helps(confirmation: Confirmation, answer: Answer) -> str:
    part, subject, contrast = _PARTS[answer.question], confirmation.subject_name, answer.contrast
    if answer.verdict == "untested":
        return f"{part}: nothing can be said, because an arm diverged or was not trained."
    if contrast is None:
        return f"{part}: nothing can be said, because {subject} does without {_USES[answer.question]}."
    numbers = f"{_in_points(contrast.difference)}, {name_p_value(contrast.p_value)}"
    s = "" if answer.question == "both" else "s"
    if answer.verdict == "helps":
        return f"{part} help{s} {subject} on this data: it gains {numbers}."
    if answer.verdict == "hurts":
        return f"{part} hurt{s} {subject} on this data: it changes by {numbers}."
    return (
        f"Whether {part} help{s} {subject} on this data cannot be told: {numbers}; "
        f"with {confirmation.n_seeds} seeds {only_found(contrast.detectable)}."
    )


def _say_what_it_beats(confirmation: Confirmation) -> str:
    """Say in one sentence how the search's best compares with each control."""

    def named(verdict: str, last: str) -> str:
        found = [answer for answer in confirmation.controls if answer.verdict == verdict]
        texts = [_with_difference(answer) for answer in found]
        return f" {last} ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))

    better, worse, unknown, untested = (
        named(verdict, last)
        for verdict, last in (("better", "and"), ("worse", "and"), ("unknown", "or"), ("untested", "or"))
    )
    parts = [
        f"it is better than {better}" if better else "",
        f"it is worse than {worse}" if worse else "",
        f"whether it is better than {unknown} cannot be told" if unknown else "",
        f"nothing can be said about {untested}, because an arm diverged or was not trained" if untested else "",
    ]
    return f"{confirmation.subject_name} was the search's best: {'; '.join(filter(None, parts))}."


def _say_what_it_buys(confirmation: Confirmation, step: StepUp) -> str:
    """Say what a step up in size buys, with the interval that holds for all steps."""
    smaller, larger = confirmation.arm(step.smaller), confirmation.arm(step.larger)
    sizes = f"from {smaller.name} ({parameters(smaller.parameters or 0)}) to {larger.name}"
    if smaller.parameters and larger.parameters:
        sizes += f" ({larger.parameters / smaller.parameters:.1f} times as many)"
    numbers = f"{_in_points(step.contrast.difference)}, {name_p_value(step.contrast.p_value)}"
    if step.contrast.significant:
        return f"The step {sizes} {'buys' if step.contrast.difference.value > 0 else 'costs'} {numbers}."
    return f"What the step {sizes} buys cannot be told: {numbers}."


def _with_difference(answer: ControlAnswer) -> str:
    word, notes = _CONTROLS.get(answer.control, answer.control), []
    if answer.control in _CONTROLS:
        notes.append(answer.control)
    if answer.contrast is not None:
        found = answer.contrast.difference
        interval = f"{points(found.low)} to {points(found.high)}"
        notes.append(f"{points(found.value)} points on test, {interval}, {name_p_value(answer.contrast.p_value)}")
    return f"{word} ({', '.join(notes)})" if notes else word


def _with_interval(mean: Estimate, *, sign: str) -> str:
    return f"{100 * mean.value:{sign}.2f} ± {100 * mean.reach:.2f}"
