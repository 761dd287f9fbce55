"""Graphs that we add to the dashboard, as Plotly takes them: accuracy over the overlay and the size, and the workers.

A graph is {"data": [...], "layout": {...}}, plain values: the page brings Plotly, so nothing here needs it. Colours are
middle ones on a transparent ground, because the page does not say whether it is light or dark.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.space import FloatRange, IntRange
from igkd_hpo.dashboard.ladder import ladder_data
from igkd_hpo.distillation.metrics import METRICS, heading
from igkd_hpo.escaping import one_line
from igkd_hpo.report.palette import control_look
from igkd_hpo.report.selection import learning_curve, lowest_shown, split_by_kind, thin
from igkd_hpo.report.timeline import begun_trials, newest_bars, worker_of
from igkd_hpo.search.best import accuracy
from igkd_hpo.search.frontier import Frontier, Step, frontier
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import parameters, percent

Graph = dict[str, Any]
Place = Callable[[FrozenTrial], tuple[float, float]]

MOST_POINTS = 1000  # of a kind; each is 100 bytes of every refresh
CROWD = 200  # points that are drawn large
BEST_CURVES, OTHER_CURVES = 10, 100

_TEXT, _FAINT, _LINE = "#808080", "rgba(128,128,128,0.55)", "rgba(128,128,128,0.25)"
_LINE_OF_FRONTIER = "#c8782f"
_BLUE, _ORANGE = "#4a90d9", "#e8862e"
# Worst to best; the middle tones of viridis, so that neither end is lost on a light or a dark page.
_SCALE = [[0.0, "#6a5a9e"], [0.33, "#3f86a8"], [0.66, "#2fae7c"], [1.0, "#e0b000"]]
_STATES = {
    TrialState.COMPLETE: ("complete", _BLUE),
    TrialState.PRUNED: ("pruned", "rgba(150,150,150,0.6)"),
    TrialState.FAIL: ("failed", "#d1495b"),
    TrialState.RUNNING: ("running", "#2fae7c"),
}


def study_graphs(study: SearchStudy, trials: Sequence[FrozenTrial], *, now: datetime, curves: bool) -> dict[str, Graph]:
    """Make the graphs that this study has something to show in, by id, in the order of the page.

    Args:
        now: where the bars of running trials end; naive local time, as Optuna's times are.
        curves: also the learning curves, which the page draws itself while there are few.
    """
    graphs = {
        "accuracy-over-overlay": _overlay(study, trials),
        "accuracy-over-size": _size(study, trials),
        "accuracy-over-compression": _compression(study),
        "workers": _workers(trials, now),
        "learning-curves": _curves(study, trials) if curves else None,
    }
    return {name: graph for name, graph in graphs.items() if graph is not None}


def _overlay(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Graph | None:
    """Draw accuracy as colour over overlay strength and alpha; as height where only one of them is searched."""
    searched = study.config.hyperparameters.searched()
    axes = [name for name in ("overlay_strength", "alpha") if isinstance(searched.get(name), FloatRange | IntRange)]
    if not axes:
        return None
    words = [name.replace("_", " ") for name in axes]
    x_title = words[0] + (" (0: no overlays)" if axes[0] == "overlay_strength" else "")

    def place(trial: FrozenTrial) -> tuple[float, float]:
        values = trial.user_attrs["hyperparameters"]
        if not values["overlay_probability"]:
            values = values | {"overlay_strength": 0.0}
        return values[axes[0]], values[axes[1]] if len(axes) == 2 else 100 * accuracy(trial)

    y_title = words[1] if len(axes) == 2 else None
    recorded = [t for t in trials if t.value is not None and "hyperparameters" in t.user_attrs]
    title = f"{heading(study.config.metric)} over {' and '.join(words)}"
    return _scatter(study, title, recorded, place, x_title, y_title)


def _size(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Graph | None:
    """Draw accuracy over the student's parameters, where trials have different ones."""
    recorded = [t for t in trials if t.value is not None and "parameters" in t.user_attrs]
    sizes = [trial.user_attrs["parameters"] for trial in recorded]
    if len(set(sizes)) < 2:
        return None

    def place(trial: FrozenTrial) -> tuple[float, float]:
        return trial.user_attrs["parameters"], 100 * accuracy(trial)

    graph = _scatter(study, f"{heading(study.config.metric)} over size", recorded, place, "parameters", None)
    if graph is not None and max(sizes) > 5 * min(sizes):
        graph["layout"]["xaxis"] |= {"type": "log", "dtick": "D2"}
    found = frontier(study, "parameters", trials)
    if graph is not None and found.steps:
        _draw_frontier(graph, found, largest=max(sizes))
    return graph


def _compression(study: SearchStudy) -> Graph | None:
    """Draw the ladder: accuracy of plain and of distilled students on the test split over how small they are."""
    if not (data := ladder_data(study)):
        return None
    metric = study.config.metric
    layout = _layout(
        f"{heading(metric)} over compression", "times smaller than the teacher", f"test {METRICS[metric]}, %"
    )
    ticks = [digit * 10**power for power in range(5) for digit in (1, 2, 5)]  # Plotly's own say 2 where 20 is
    layout["xaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,}" for tick in ticks]}
    return {"data": data, "layout": layout}


def _draw_frontier(graph: Graph, found: Frontier, *, largest: float) -> None:
    """Draw a step line, hollow where a step is a tie, and the interval of one seed as a band, both below the points."""
    last = found.steps[-1]
    steps = [*found.steps, *([replace(last, cost=largest)] if largest > last.cost else [])]
    x = [step.cost for step in steps]
    line = {"shape": "hv", "width": 2, "color": _LINE_OF_FRONTIER}
    band = []
    if found.source is not None:
        words = "by several seeds" if found.source == "repeats" else "by chance of the images"
        edge: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": x, "hoverinfo": "skip"}
        edge |= {"line": line | {"width": 0}, "legendgroup": "band"}
        low = [_shorten(100 * (step.low or 0.0)) for step in steps]
        high = [_shorten(100 * (step.high or 0.0)) for step in steps]
        filled = {"fill": "tonexty", "fillcolor": "rgba(232,134,46,0.15)"}
        band = [
            edge | {"name": "", "y": low, "showlegend": False},
            edge | {"name": f"where another seed ends, {words}", "y": high} | filled,
        ]
    symbols = ["circle" if step.told_apart else "circle-open" for step in found.steps]
    symbols += ["line-ew"] * (len(steps) - len(symbols))
    frontier_line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "frontier (hollow: a tie)",
        "x": x,
        "y": [_shorten(100 * step.validation_accuracy) for step in steps],
        "text": [_describe_step(step) for step in steps],
        "hovertemplate": "%{text}<extra></extra>",
        "line": line,
        "marker": {"symbol": symbols, "size": 16, "color": _LINE_OF_FRONTIER},
    }
    graph["data"][:0] = [*band, frontier_line]


def _describe_step(step: Step) -> str:
    text = f"trial {step.trial}: {percent(step.validation_accuracy)} with {parameters(step.cost)}"
    if step.low is None or step.high is None:
        return text
    return f"{text}<br>another seed: {percent(step.low)} to {percent(step.high)}"


def _named(study: SearchStudy) -> str:
    return f"validation {METRICS[study.config.metric]}, %"


def _scatter(
    study: SearchStudy, title: str, trials: list[FrozenTrial], place: Place, x_title: str, y_title: str | None
) -> Graph | None:
    """Draw a point for each trial, its value as colour where no axis shows it; None without a COMPLETE one.

    `y_title` is None where the height is the value of the study's metric.
    """
    complete, pruned, controls = split_by_kind(trials)
    ended = complete + controls
    if not ended:
        return None
    coloured = y_title is not None
    y_title = y_title or _named(study)
    lowest = 100 * lowest_shown([accuracy(trial) for trial in ended])
    highest = max(100 * max(accuracy(trial) for trial in ended), lowest + 0.1)

    def points(name: str, some: Sequence[FrozenTrial], marker: dict[str, Any]) -> dict[str, Any]:
        places = [place(trial) for trial in some]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [_shorten(x) for x, _ in places],
            "y": [_shorten(y) for _, y in places],
            "text": [f"trial {trial.number}: {percent(accuracy(trial))}" for trial in some],
            "hovertemplate": f"%{{text}}<br>{x_title}: %{{x}}<br>{y_title}: %{{y}}",
            "marker": marker,
        }

    def colour(some: Sequence[FrozenTrial], otherwise: str) -> dict[str, Any]:
        if not coloured:
            return {"color": otherwise}
        colours = [round(100 * accuracy(trial), 2) for trial in some]
        return {"color": colours, "colorscale": _SCALE, "cmin": lowest, "cmax": highest}

    drawn, size = _thin_but_best(complete, MOST_POINTS), 9 if len(complete) <= CROWD else 6
    cross = {"symbol": "x-thin", "size": 6, "line": {"width": 1.2, "color": _FAINT}}
    dot = {"size": size, "line": {"width": 0.5, "color": _FAINT}, **colour(drawn, _BLUE)}
    data = [points("pruned, last value", thin(pruned, MOST_POINTS), cross), points("complete", drawn, dot)]
    for trial in controls:
        name, look = trial.user_attrs["control"], control_look(trial.user_attrs["control"])
        line = {"width": 2.5, "color": look.colour}
        marker = {"symbol": look.symbol, "size": 14, "line": line, **colour([trial], look.colour)}
        data.append(points(f"control {_plain(name)}", [trial], marker))
    best = max(ended, key=lambda trial: (trial.value, -trial.number))
    ring = {"symbol": "circle-open", "size": 20, "line": {"width": 2, "color": _ORANGE}, "color": _ORANGE}
    data.append(points("best so far", [best], ring))
    layout = _layout(title, x_title, y_title)
    if coloured:
        bar = {"title": {"text": _named(study), "side": "right"}, "thickness": 12, "outlinewidth": 0}
        data[1]["marker"] |= {"colorbar": bar, "showscale": True}
    else:
        least = min([lowest, *(100 * accuracy(trial) for trial in controls)])
        layout["yaxis"]["range"] = [least - 0.06 * (highest - least), highest + 0.08 * (highest - least)]
    return {"data": [trace for trace in data if trace["x"]], "layout": layout}


def _workers(trials: Sequence[FrozenTrial], now: datetime) -> Graph | None:
    """Draw the last attempt of each trial as a bar in its worker's row; the newest ones, where there are many."""
    last, workers = newest_bars(begun := begun_trials(trials))
    if not last:
        return None
    data = []
    for state, (name, colour) in _STATES.items():
        some = [trial for trial in last if trial.state is state and worker_of(trial) in workers]
        if not some:
            continue
        times = [(trial.datetime_start or now, trial.datetime_complete or now) for trial in some]
        seconds = [(end - begin).total_seconds() for begin, end in times]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [_plain(worker_of(trial)) for trial in some],
                "base": [begin.isoformat(sep=" ", timespec="milliseconds") for begin, _ in times],
                "x": [max(1, round(1000 * taken)) for taken in seconds],
                "text": [f"x{n}" if (n := trial.user_attrs.get("attempts", 1)) > 1 else "" for trial in some],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "customdata": [
                    f"{_describe(trial)}<br>{taken:,.1f} s" for trial, taken in zip(some, seconds, strict=True)
                ],
                "hovertemplate": "%{customdata}<br>%{y}<extra></extra>",
                "marker": {"color": colour, "line": {"width": 0.5, "color": _TEXT}},
            }
        )
    newest = f": the last {len(last)} of {len(begun):,} trials" if len(begun) > len(last) else ""
    layout = _layout(f"Workers{newest}", "local time", "") | {"barmode": "overlay", "bargap": 0.25}
    layout["xaxis"]["type"] = "date"
    layout["yaxis"] |= {"type": "category", "categoryorder": "array", "showgrid": False}
    layout["yaxis"]["categoryarray"] = [*map(_plain, workers[::-1])]
    return {"data": data, "layout": layout}


def _curves(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Graph | None:
    """Draw validation accuracy by epoch: the best trials, and others evenly chosen, each kind one line with gaps."""
    with_curve = [trial for trial in trials if trial.intermediate_values]
    complete = [trial for trial in with_curve if trial.state is TrialState.COMPLETE]
    if not complete:
        return None
    best = sorted(complete, key=lambda trial: (-accuracy(trial), trial.number))[:BEST_CURVES]
    numbers = {trial.number for trial in best}
    kinds = (
        ("pruned", [t for t in with_curve if t.state is TrialState.PRUNED], "rgba(150,150,150,0.35)", 1),
        ("complete", [t for t in complete if t.number not in numbers], "rgba(74,144,217,0.35)", 1),
        ("running", [t for t in with_curve if t.state is TrialState.RUNNING], "#2fae7c", 2),
        (f"the best {len(best)}", best, _ORANGE, 2),
    )
    hover = "%{text}<br>epoch %{x}: %{y} %"
    common = {"type": "scatter", "mode": "lines", "hovertemplate": hover, "connectgaps": False}
    data = []
    for name, some, colour, width in kinds:
        trace: dict[str, Any] = {"name": name, "x": [], "y": [], "text": [], "line": {"color": colour, "width": width}}
        for trial in thin(some, OTHER_CURVES):
            epochs, accuracies = learning_curve(trial)
            trace["x"] += [*epochs, None]
            trace["y"] += [*(round(100 * fraction, 2) for fraction in accuracies), None]
            trace["text"] += [f"trial {trial.number}"] * (len(epochs) + 1)
        if some:
            data.append(common | trace)
    several = f": the best {len(best)}, and {OTHER_CURVES} of each kind" if len(trials) > OTHER_CURVES else ""
    return {"data": data, "layout": _layout(f"Learning curves{several}", "epoch", _named(study))}


def _layout(title: str, x_title: str, y_title: str) -> dict[str, Any]:
    axis = {"gridcolor": _LINE, "zeroline": False, "linecolor": _LINE, "automargin": True}
    return {
        "title": {"text": f"<b>{title}</b>", "x": 0.02, "xanchor": "left", "font": {"size": 16}},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _TEXT},
        "xaxis": axis | {"title": {"text": x_title}},
        "yaxis": axis | {"title": {"text": y_title}},
        "legend": {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"},
        "margin": {"l": 60, "r": 20, "t": 50, "b": 40},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#333333", "bordercolor": "#333333", "font": {"color": "#ffffff"}},
        "uirevision": title,  # a refresh keeps the reader's zoom
    }


def _thin_but_best(trials: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """Choose at most that many: the better half of them the best of all, the others evenly chosen."""
    if len(trials) <= most:
        return list(trials)
    ordered = sorted(trials, key=lambda trial: -accuracy(trial))
    kept = {trial.number for trial in [*ordered[: most // 2], *thin(ordered[most // 2 :], most - most // 2)]}
    return [trial for trial in trials if trial.number in kept]


def _shorten(value: float) -> float:
    return float(f"{value:.5g}")


def _plain(name: str) -> str:
    """Write a name from the database as Plotly shows it as it is: its texts are a kind of HTML, with links."""
    return html.escape(one_line(name), quote=False)


def _describe(trial: FrozenTrial) -> str:
    control = f" (control {_plain(trial.user_attrs['control'])})" if "control" in trial.user_attrs else ""
    attempts = trial.user_attrs.get("attempts", 1)
    again = f", attempt {attempts}" if attempts > 1 else ""
    return f"trial {trial.number}{control}: {_STATES[trial.state][0]}{again}"
