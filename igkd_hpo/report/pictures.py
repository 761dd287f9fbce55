"""Pictures of `show`: attribution maps, learning curves, and which hyperparameters mattered."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.distillation.metrics import METRICS
from igkd_hpo.errors import UsageError
from igkd_hpo.escaping import one_line
from igkd_hpo.files import write_output
from igkd_hpo.report.palette import BLUE, GREY, GRID, INK, control_look
from igkd_hpo.report.selection import learning_curve, split_by_kind, thin
from igkd_hpo.search.best import accuracy
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_COLUMNS = 8
_FEWEST = 4  # completed trials that can be ranked
_MANY = 20  # completed trials, below which importances change a lot with each further one


def maps_figure(
    images: npt.NDArray[Any], maps: npt.NDArray[Any], overlays: npt.NDArray[Any], names: Sequence[str], about: str
) -> "Figure":
    """Draw training images, their attribution maps and overlays, in threes of rows, at most eight columns wide.

    Args:
        images: (N, 3, H, W), uint8 or floats in [0, 1]; N of at least 1.
        maps: (N, H, W), floats in [0, 1].
        overlays: (N, 3, H, W), uint8 or floats in [0, 1].
        names: each image's class.
        about: the overlays, such as their strength.
    """
    columns = min(len(images), _MAX_COLUMNS)
    bands = -(-len(images) // columns)
    figure = new_figure(width=0.9 + 1.25 * columns, height=0.35 + 4.15 * bands)
    axes = figure.subplots(3 * bands, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for n, name in enumerate(map(one_line, names)):
        band, column = divmod(n, columns)
        image_axis, map_axis, overlay_axis = axes[3 * band : 3 * band + 3, column]
        image_axis.imshow(images[n].transpose(1, 2, 0), interpolation="nearest")
        image_axis.set_title(name if len(name) <= 14 else name[:13] + "…", fontsize=9, parse_math=False)
        map_axis.imshow(maps[n], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        overlay_axis.imshow(overlays[n].transpose(1, 2, 0), interpolation="nearest")
    for row, axis in enumerate(axes[:, 0]):
        label = ("image", "map", f"overlay,\n{about}")[row % 3]
        axis.text(-0.12, 0.5, label, transform=axis.transAxes, ha="right", va="center", fontsize=10, color=INK)
    return figure


def curves_figure(study: SearchStudy, *, most: int | None = None) -> "Figure":
    """Draw every trial's value on validation by epoch: the best and the controls in colour, pruned trials thin.

    Args:
        most: lines of other trials than the best and the controls; of more, an even choice is drawn. None draws all.

    Raises:
        UsageError: no trial has finished an epoch.
    """
    from matplotlib.ticker import MaxNLocator

    trials = [trial for trial in study.trials() if trial.intermediate_values]
    if not trials:
        raise UsageError(f"study {study.name} has no finished epoch to draw yet; see `igkd-hpo status`")
    figure = new_figure(width=9.5, height=5)
    axis = figure.subplots()
    best = max(split_by_kind(trials)[0], key=accuracy, default=None)
    named = [trial for trial in trials if trial is best or "control" in trial.user_attrs]
    others = [trial for trial in trials if trial is not best and "control" not in trial.user_attrs]
    labels = set()  # of the grey lines, one of each kind goes into the legend
    for trial in sorted([*named, *thin(others, most)], key=lambda trial: trial.number):
        epochs, accuracies = learning_curve(trial)
        style: dict[str, Any] = {"marker": "." if len(epochs) == 1 else None}  # one point makes no line
        if trial is best:
            label = f"best of the search, trial {trial.number}: {percent(accuracy(trial))}"
            style |= {"color": BLUE, "linewidth": 2.4, "zorder": 4}
        elif control := trial.user_attrs.get("control"):
            label, look = f"control {control}: {percent(accuracies[-1])}", control_look(control)
            style |= {"color": look.colour, "linewidth": 1.5, "zorder": 3}
            style |= {"marker": look.mark, "markersize": 4, "markevery": 0.12}
        elif trial.state == TrialState.PRUNED:
            label = "pruned trials"
            style |= {"color": GREY, "linewidth": 1.2, "linestyle": ":"}
        else:
            label = "other trials"
            style |= {"color": GREY, "linewidth": 0.8}
        axis.plot(epochs, accuracies, label="_nolegend_" if label in labels else label, **style)
        labels.add(label)
    axis.set_title(f"{study.name}: {len(trials)} trials", loc="left", fontsize=12, color=INK, parse_math=False)
    axis.set(xlabel="epoch", ylabel=f"validation {METRICS[study.config.metric]}")
    # From a quarter of the epochs on, trials differ by a few points; the steep rise before it would flatten them.
    first = study.config.training.epochs / 4
    late = [value for trial in trials for epoch, value in trial.intermediate_values.items() if epoch >= first]
    if late:
        axis.set_ylim(bottom=min(late) - 0.05 * (max(late) - min(late)) - 0.005)
    in_percent(axis.yaxis)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    plain_axes(axis, grid="both")
    return figure


def importance_figure(study: SearchStudy) -> "Figure":
    """Draw how much each searched hyperparameter decided whether a COMPLETE trial was among the better (PED-ANOVA).

    Raises:
        UsageError: nothing is searched, fewer than 4 trials completed, or all of them are equally accurate.
    """
    completed = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    searched = list(study.config.hyperparameters.searched())
    if not searched:
        raise UsageError(f"study {study.name} searches no hyperparameter, so none can be ranked")
    if len(completed) < _FEWEST:
        raise UsageError(
            f"study {study.name} has {len(completed)} completed trials, too few to rank its hyperparameters; run more"
        )
    if len({trial.value for trial in completed}) == 1:
        raise UsageError(
            f"all {len(completed)} completed trials of study {study.name} reached the same "
            f"{METRICS[study.config.metric]}, so no hyperparameter can be ranked"
        )
    importances = _importances(study, completed, searched)
    names = sorted(importances, key=importances.__getitem__)
    figure = new_figure(width=7, height=1.5 + 0.42 * len(names))
    axis = figure.subplots()
    bars = axis.barh(names, [importances[name] for name in names], color=BLUE, height=0.62)
    axis.bar_label(bars, labels=[percent(importances[name], 0) for name in names], padding=4, fontsize=10)
    axis.set_xlim(0, 1.12 * max(importances.values()))
    axis.set_title(
        f"{study.name}: which hyperparameters mattered", loc="left", fontsize=12, color=INK, parse_math=False
    )
    few = "; so few say little" if len(completed) < _MANY else ""
    axis.set_xlabel(f"relative importance (PED-ANOVA on {len(completed)} completed trials{few})")
    in_percent(axis.xaxis)
    plain_axes(axis, grid="x")
    axis.tick_params(axis="y", length=0)
    return figure


def _importances(study: SearchStudy, completed: Sequence[FrozenTrial], searched: list[str]) -> dict[str, float]:
    """Return the share of each hyperparameter, judged by the trials in which it had an effect; they add up to 1."""
    import optuna

    def acting(name: str) -> list[FrozenTrial]:
        return [trial for trial in completed if name not in trial.user_attrs.get("without_effect", ())]

    if all(len(acting(name)) == len(completed) for name in searched):
        return dict(optuna.importance.get_param_importances(study.optuna_study, params=searched))
    found = dict.fromkeys(searched, 0.0)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # of studies that are made and forgotten
    try:
        for name in searched:
            trials = acting(name)
            if len(trials) < _FEWEST or len({trial.value for trial in trials}) == 1:
                continue
            apart = optuna.create_study(direction="maximize")
            apart.add_trials(trials)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `normalize`
                found[name] = optuna.importance.get_param_importances(apart, params=[name], normalize=False)[name]
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(found.values())
    return {name: share / total if total else 1 / len(found) for name, share in found.items()}


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in one step, as PNG, SVG or PDF by the name's ending. Raises UsageError."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(f"cannot draw {path.name}: a picture's name ends in .png, .svg or .pdf")
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=160)
    write_output(path, buffer.getvalue())


def new_figure(*, width: float, height: float) -> "Figure":
    """Make an empty figure, sizes in inches, that no pyplot state knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure


def in_percent(axis: Any) -> None:
    """Label an x or y axis of fractions in per cent."""
    axis.set_major_formatter(lambda fraction, _: f"{round(100 * fraction, 2):g} %")


def plain_axes(axis: "Axes", *, grid: Any) -> None:
    """Leave a frame of two sides, and a faint grid along x, y or both."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
