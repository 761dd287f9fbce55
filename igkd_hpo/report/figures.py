"""Figures of a report that `show` does not draw, each narrow enough for a phone."""

import textwrap
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.config.space import Choices, FloatRange, IntRange, Range, WordChoices, shown
from igkd_hpo.confirmation.confirmation import Confirmation
from igkd_hpo.confirmation.explanations import CEILINGS, Explanations
from igkd_hpo.confirmation.statistics import Estimate
from igkd_hpo.distillation.metrics import METRICS, Metric
from igkd_hpo.report.palette import BLUE, GREY, INK, PAPER, control_look
from igkd_hpo.report.pictures import in_percent, new_figure, plain_axes
from igkd_hpo.report.selection import lowest_shown, split_by_kind, thin
from igkd_hpo.search.best import accuracy
from igkd_hpo.search.frontier import Frontier
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.search.trial_cost import cost_of
from igkd_hpo.words import counted, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.2  # inches: a phone shows it at four fifths of its size, a desk screen two side by side
MOST_POINTS = 600
MOST_POINTS_IN_A_SLICE = 400
MOST_LINES = 80
_LETTERS_OF_CHOICES = 20  # of all that fit side by side below a panel, and of one that is slanted

PARTS = {"ig": "IG", "kd": "KD", "both": "IG and KD"}


def compact(figure: "Figure", height: float) -> "Figure":
    """Fit a figure of `show` to the width of the page: without its title, the legend below."""
    figure.set_size_inches(WIDTH, height)
    for axis in figure.axes:
        axis.set_title("", loc="left")
        axis.set_xlabel(textwrap.fill(axis.get_xlabel(), 40))
        legend = axis.get_legend()
        if legend is not None:
            handles, labels = axis.get_legend_handles_labels()
            legend.remove()
            figure.legend(handles, labels, loc="outside lower left", fontsize=9, frameon=False)
    return figure


def confirmation_figure(confirmation: Confirmation) -> "Figure":
    """Draw each arm's seeds, mean and 95 % interval on the test split, the best on top; filled where tied with it."""
    arms = sorted(confirmation.arms, key=lambda arm: arm.test.mean.value)
    names = [wrap_name(" = ".join(arm.names), 24) for arm in arms]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = new_figure(width=WIDTH, height=0.9 + 0.3 * len(arms) + 0.13 * lines)
    axis = figure.subplots()
    for y, arm in enumerate(arms):
        colour = BLUE if arm.tied else GREY
        axis.plot(arm.test.accuracies, [y] * len(arm.test.accuracies), "|", color=colour, markersize=5, alpha=0.8)
        _draw_interval(axis, y, arm.test.mean, filled=arm.tied)
    in_percent(axis.xaxis)
    _label_rows(axis, names, f"{METRICS[confirmation.metric]} on the test split")
    return figure


def contrasts_figure(confirmation: Confirmation) -> "Figure | None":
    """Draw what each part adds on the test split, with intervals that hold for all at once; None without contrasts."""
    contrasts = [(PARTS[one.question], one.contrast) for one in reversed(confirmation.answers) if one.contrast]
    if not contrasts:
        return None
    figure = new_figure(width=WIDTH, height=0.9 + 0.45 * len(contrasts))
    axis = figure.subplots()
    axis.axvline(0, color=INK, linewidth=1)
    for y, (_, contrast) in enumerate(contrasts):
        _draw_interval(axis, y, contrast.difference, filled=contrast.significant, scale=100)
    _label_rows(axis, [name for name, _ in contrasts], "points that it costs (left) or adds (right)")
    return figure


def reasons_figure(found: Explanations) -> "Figure":
    """Draw how well each arm's maps agree with the teacher's, filled, between the floors and the ceiling, hollow."""
    rows = [(name, one.correlation, False) for name, one in found.floors]
    rows += [(arm.name, arm.agreement.correlation, True) for arm in reversed(found.arms)]
    if found.ceiling is not None and found.ceiling_of is not None:
        rows.append((f"ceiling: {CEILINGS[found.ceiling_of]}", found.ceiling.correlation, False))
    names = [wrap_name(name, 24) for name, *_ in rows]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = new_figure(width=WIDTH, height=0.9 + 0.3 * len(rows) + 0.13 * lines)
    axis = figure.subplots()
    for y, (_, estimate, filled) in enumerate(rows):
        _draw_interval(axis, y, estimate, filled=filled)
    _label_rows(axis, names, "rank correlation")
    return figure


def _draw_interval(axis: "Axes", y: int, estimate: Estimate, *, filled: bool, scale: int = 1) -> None:
    colour = BLUE if filled else GREY
    axis.plot([scale * estimate.low, scale * estimate.high], [y, y], color=colour, linewidth=1.7, solid_capstyle="butt")
    axis.plot([scale * estimate.value], [y], "o", color=colour, mfc=colour if filled else PAPER, markersize=7)


def _label_rows(axis: "Axes", names: Sequence[str], x_label: str) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set(ylim=(-0.6, len(names) - 0.4), xlabel=x_label)
    plain_axes(axis, grid="x")
    axis.tick_params(axis="y", length=0)


def history_figure(trials: Sequence[FrozenTrial], metric: Metric) -> "Figure | None":
    """Draw the value of every trial in the order of their numbers, and the best so far; None before the first."""
    ended = [trial for trial in trials if trial.value is not None]  # one beyond a limit has none
    if not ended:
        return None
    others, _, controls = split_by_kind(ended)
    figure = new_figure(width=WIDTH, height=3.6)
    axis = figure.subplots()
    completed = sorted(others + controls, key=lambda trial: trial.number)
    values = [accuracy(trial) for trial in ended]
    floor = lowest_shown([accuracy(trial) for trial in completed] or values, values)
    room = 0.06 * (max(values) - floor) or 0.01
    for kind, mark, size, colour, label in _looks(ended):
        if some := thin(kind, MOST_POINTS // 2):
            heights = [reached if (reached := accuracy(t)) >= floor else floor - room for t in some]
            axis.plot([t.number for t in some], heights, mark, color=colour, markersize=size, label=label)
    highest_before = accumulate([float("-inf"), *map(accuracy, completed)], max)
    records = [trial for trial, best in zip(completed, highest_before, strict=False) if accuracy(trial) > best]
    if records:
        numbers = [*(trial.number for trial in records), max(trial.number for trial in ended)]
        highest = [*map(accuracy, records), accuracy(records[-1])]
        axis.plot(numbers, highest, drawstyle="steps-post", color=INK, linewidth=1, label="best so far", zorder=1)
    axis.set(xlabel="trial", ylabel=f"validation {METRICS[metric]}")
    in_percent(axis.yaxis)
    plain_axes(axis, grid="y")
    if below := sum(value < floor for value in values):
        axis.set_title(f"at the bottom: {counted(below, 'trial')} below the scale", loc="right", fontsize=8, color=INK)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False, ncols=2)
    return figure


def _looks(trials: Sequence[FrozenTrial]) -> list[tuple[list[FrozenTrial], str, float, str, str]]:
    """Return how each kind of ended trials is drawn: trials, mark, its size, colour and label."""
    others, pruned, controls = split_by_kind(trials)
    looks = [(others, ".", 7.0, BLUE, "completed"), (pruned, "x", 4.5, GREY, "pruned, last value")]
    for trial in controls:
        name = trial.user_attrs["control"]
        looks.append(([trial], control_look(name).mark, 6.0, control_look(name).colour, f"control {name}"))
    return looks


def frontier_figure(found: Frontier, trials: Sequence[FrozenTrial]) -> "Figure | None":
    """Draw accuracy over a cost: completed trials, and the frontier as a step line with the interval of one seed.

    None where all trials cost the same, or nothing is known of their costs.
    """
    places = [(cost, trial) for trial in trials if (cost := cost_of(trial, found.cost)) is not None]
    costs = [cost for cost, _ in places]
    if len(set(costs)) < 2 or not found.steps:
        return None
    figure = new_figure(width=WIDTH, height=3.8)
    axis = figure.subplots()
    floor = lowest_shown([accuracy(trial) for _, trial in places])
    of_cost = {trial.number: cost for cost, trial in places}
    for kind, mark, size, colour, label in _looks([trial for _, trial in places]):
        if not (some := thin(kind, MOST_POINTS // 2)):
            continue
        heights = [max(floor, accuracy(trial)) for trial in some]
        axis.plot(
            [of_cost[t.number] for t in some], heights, mark, color=colour, markersize=size, label=label, zorder=3
        )
    steps = found.steps
    x = [*(step.cost for step in steps), max(costs)]
    values = [step.validation_accuracy for step in steps]
    axis.plot(x, [*values, values[-1]], drawstyle="steps-post", color=INK, linewidth=1.4, label="frontier")
    if found.source is not None:
        low, high = [step.low or 0.0 for step in steps], [step.high or 0.0 for step in steps]
        axis.fill_between(
            x, [*low, low[-1]], [*high, high[-1]], step="post", color=INK, alpha=0.1, linewidth=0, label="another seed"
        )
    for told_apart, label in ((True, "a step up"), (False, "a tie with the one before")):
        if some_steps := [step for step in steps if step.told_apart == told_apart]:
            filling = INK if told_apart else PAPER
            heights = [max(floor, step.validation_accuracy) for step in some_steps]
            # Larger than any trial's mark, and below it: on the frontier are trials.
            axis.plot([s.cost for s in some_steps], heights, "o", color=INK, mfc=filling, markersize=10, label=label)
    _scale_costs(axis, min(costs), max(costs))
    room = 0.06 * (axis.get_ylim()[1] - floor)
    axis.set(xlabel=COSTS[found.cost].title, ylabel=f"validation {METRICS[found.metric]}", ylim=(floor - room, None))
    in_percent(axis.yaxis)
    plain_axes(axis, grid="both")
    figure.legend(loc="outside lower left", fontsize=9, frameon=False, ncols=2)
    return figure


def slices_figure(study: SearchStudy, trials: Sequence[FrozenTrial]) -> "Figure | None":
    """Draw accuracy over each searched hyperparameter: completed trials as points, pruned ones as crosses below."""
    searched = study.config.hyperparameters.searched()
    recorded = [t for t in trials if "hyperparameters" in t.user_attrs and t.value is not None]
    completed = thin([t for t in recorded if t.state is TrialState.COMPLETE], MOST_POINTS_IN_A_SLICE // 2)
    pruned = thin([t for t in recorded if t.state is TrialState.PRUNED], MOST_POINTS_IN_A_SLICE // 2)
    if not searched or not completed:
        return None
    rows = -(-len(searched) // 2)
    figure = new_figure(width=WIDTH, height=0.3 + 1.85 * rows)
    axes = figure.subplots(rows, 2, squeeze=False, sharey=True).flatten()
    accuracies = [accuracy(trial) for trial in completed]
    floor, top = lowest_shown(accuracies), max(accuracies)
    step = (top - floor) * 0.09 or 0.01
    for axis, (name, setting) in zip(axes, searched.items(), strict=False):
        for some, mark, colour in ((pruned, "x", GREY), (completed, ".", BLUE)):
            acting = [trial for trial in some if name not in trial.user_attrs.get("without_effect", ())]
            places = [_place(setting, trial.user_attrs["hyperparameters"][name]) for trial in acting]
            heights = [floor - step if mark == "x" else max(floor, accuracy(trial)) for trial in acting]
            axis.plot(places, heights, mark, color=colour, markersize=4 if mark == "x" else 6)
        axis.set_xlabel(name, fontsize=9)
        axis.set_ylim(floor - 2 * step, top + step)
        axis.tick_params(labelsize=8)
        _scale(axis, setting)
        in_percent(axis.yaxis)
        plain_axes(axis, grid="y")
    for axis in axes[len(searched) :]:
        axis.set_axis_off()
    return figure


def say_left_out(count: int, most: int) -> str:
    """Say in a sentence that trials are left out of a figure, or nothing where all are drawn."""
    return f" Of {count:,} trials, at most {most:,} are drawn, evenly chosen." if count > most else ""


def _place(setting: Range, value: float | str) -> float:
    if isinstance(setting, (Choices, WordChoices)):
        choices: tuple[float | str, ...] = setting.choices
        return float(choices.index(value)) if value in choices else -0.5  # a control has its own
    return float(value)


def _scale_costs(axis: "Axes", least: float, most: float) -> None:
    """Label an axis of costs as limits are written, 20k or 1.5M; logarithmic where they differ much."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if most > 5 * least > 0:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if most > 100 * least else (1.0, 2.0, 5.0), numticks=6))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda cost, _: short_count(cost))


def _scale(axis: "Axes", setting: Range) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    match setting:
        case Choices(choices=choices) | WordChoices(choices=choices):
            names = [_shortened(shown(choice)) for choice in choices]
            axis.set_xticks(range(len(choices)), names)
            if sum(map(len, names)) > _LETTERS_OF_CHOICES:
                for label in axis.get_xticklabels():
                    label.set(rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
            axis.set_xlim(-0.7, len(choices) - 0.3)
            return
        case FloatRange(low=low, high=high, log=True) | IntRange(low=low, high=high, log=True):
            axis.set_xscale("log")
            wide = high / low >= 30
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=5))
            axis.xaxis.set_minor_locator(NullLocator())
        case _:
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=isinstance(setting, IntRange)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _shortened(choice: str) -> str:
    name = choice.rpartition("/")[2]  # a network without its library
    return name if len(name) <= _LETTERS_OF_CHOICES else f"{name[: _LETTERS_OF_CHOICES - 1]}…"


def wrap_name(name: str, width: int) -> str:
    """Break a name into three lines at most of that many letters."""
    lines = textwrap.wrap(name, width) or [name]
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2][: width - 1] + "…"])
