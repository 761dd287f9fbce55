"""Picture of a ladder: accuracy over compression, of plain and of distilled students."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from igkd_hpo.compression.ladder import Ladder
from igkd_hpo.compression.plan import DISTILLED, PLAIN_KIND
from igkd_hpo.distillation.metrics import METRICS
from igkd_hpo.report.figures import WIDTH
from igkd_hpo.report.palette import BLUE, control_look
from igkd_hpo.report.pictures import in_percent, new_figure, plain_axes
from igkd_hpo.words import times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = ((PLAIN_KIND, control_look("student").colour, "s", 0.975), (DISTILLED, BLUE, "o", 1.025))
"""Kind, colour, mark, and how far it is moved aside, so that two intervals at one factor do not cover each other."""


def apart(factors: Sequence[float]) -> list[float]:
    """Choose factors that can be labelled on a log axis: of those whose labels would touch, the smallest."""
    ordered = sorted(factors)
    least, chosen = (ordered[-1] / ordered[0]) ** 0.08, ordered[:1]
    for factor in ordered[1:]:
        if factor >= least * chosen[-1]:
            chosen.append(factor)
    return chosen


def ladder_figure(ladder: Ladder) -> "Figure":
    """Draw the mean and its 95 % interval on the test split over the factor that is reached, on a log axis."""
    from matplotlib.ticker import NullLocator

    figure = new_figure(width=WIDTH, height=3.6)
    axis = figure.subplots()
    for kind, colour, mark, aside in _LOOKS:
        points = [(step.reached * aside, arm.test.mean) for step in ladder.steps if (arm := step.arm(kind)) is not None]
        for x, mean in points:
            axis.plot([x, x], [mean.low, mean.high], color=colour, linewidth=1.7, solid_capstyle="butt")
        axis.plot(
            [x for x, _ in points], [mean.value for _, mean in points], mark + "-", color=colour, markersize=5,
            linewidth=0.8, label=kind,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    labelled = apart([step.reached for step in ladder.steps])
    axis.set_xticks(labelled, [times(factor) for factor in labelled])
    axis.set(xlabel="times smaller than the teacher", ylabel=f"{METRICS[ladder.metric]} on the test split")
    in_percent(axis.yaxis)
    plain_axes(axis, grid="y")
    figure.legend(loc="outside lower left", fontsize=9, frameon=False, ncols=2)
    return figure
