"""The charts of a comparison, as Plotly's figures: plain dicts of traces and layout."""

import math
from collections.abc import Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np

from analysis.comparison.comparing import Comparison, shortened
from analysis.comparison.reading import Run, State
from analysis.comparison.surfaces import Axis, Curve, Grid, axes_of, curves_over, grids_over
from analysis.pictures import COLOURS
from analysis.run_record import smooth

Figure = dict[str, Any]
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_MOST_POINTS = 500  # of a curve: a page of forty runs stays small, and a screen shows no more
MOST_SHOWN = 12
"""Runs in the chart of the loss at first, the best of those that compare; the others wait in its legend."""
_MARKS = 6  # on a training curve: colours alone say little in greyscale
_LONGEST = 44  # characters of a name in a legend
_FONT = {"family": "system-ui, sans-serif", "size": 15, "color": "#222"}


def loss_figure(comparison: Comparison) -> tuple[Figure, list[dict[str, Any]]]:
    """Training and validation loss side by side, and for each trace what its x can be.

    The x of a trace is its `steps` times `tokens` (a step) or `flops` (a step), or its `hours`; the script fills it in.
    """
    traces, axes = [], []
    looks = _looks(comparison)
    shown = [run for run in comparison.runs if run.rows and run.state is not State.MISSING]
    shown.sort(key=lambda run: (run.name not in looks, run.final.get("val/loss/mean", math.inf)))
    for n, run in enumerate(shown):
        colour, dash, symbol = looks.get(run.name, ("#999999", "dot", "x"))
        name = plain(legend_name(comparison, run))
        first = True
        for panel, key in (("", "train/loss"), ("2", "val/loss/mean")):
            steps, values = _finite(*run.series(key))
            if not len(steps):
                continue
            if not panel:
                steps, values = _thin(steps, smooth(values))
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": name,
                    "legendgroup": run.name,
                    "showlegend": first,
                    "visible": True if run.name in looks and n < MOST_SHOWN else "legendonly",
                    "xaxis": f"x{panel}",
                    "yaxis": f"y{panel}",
                    "y": _digits(values),
                    "line": {"color": colour, "dash": dash, "width": 2},
                    "marker": {"size": 8, "symbol": symbol, "maxdisplayed": 0 if panel else _MARKS},
                    "hovertemplate": "%{y:.4f}",
                }
            )
            tokens = run.tokens_per_step
            axes.append(
                {
                    "steps": steps.tolist(),
                    "hours": _digits(run.hours_at(steps)),
                    "tokens": tokens,
                    "flops": tokens * run.flops_per_token,
                }
            )
            first = False
    return {"data": traces, "layout": _loss_layout(comparison, traces)}, axes


def _loss_layout(comparison: Comparison, traces: Sequence[Figure]) -> Figure:
    highest = _highest_of_interest(comparison)
    axis = {
        "gridcolor": "#e6e6e6",
        "zeroline": False,
        "title": {"standoff": 8},
        "ticks": "outside",
        "tickcolor": "#999",
    }
    return {
        "height": 470,
        "margin": {"l": 70, "r": 10, "t": 42, "b": 60},
        "font": _FONT,
        "hovermode": "x",
        "hoverlabel": {"namelength": 60},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "legend": {"x": 1.01, "y": 1, "font": {"size": 13}, "tracegroupgap": 0, "itemwidth": 40},
        "xaxis": {**axis, "domain": [0, 0.46]},
        "xaxis2": {**axis, "domain": [0.54, 1], "anchor": "y2"},
        "yaxis": {**axis, "title": {"text": "nats per loss-bearing token"}, **_span(traces, "y", highest)},
        "yaxis2": {**axis, "anchor": "x2", **_span(traces, "y2", highest)},
        "annotations": [
            {**_heading("training loss, smoothed"), "x": 0.23},
            {**_heading("validation loss, mean of the sources"), "x": 0.77},
        ],
    }


def _span(traces: Sequence[Figure], axis: str, highest: float | None) -> Figure:
    """The range of an axis, from the lowest shown value to the highest one of interest."""
    values = [y for trace in traces if trace["visible"] is True and trace["yaxis"] == axis for y in trace["y"]]
    if highest is None or not values or min(values) >= highest:
        return {"autorange": True}
    top = min(highest, max(values))
    margin = 0.05 * (top - min(values))
    return {"range": [min(values) - margin, top + margin]}


def _heading(text: str) -> Figure:
    place = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center", "yshift": 8}
    return {"text": f"<b>{text}</b>", "showarrow": False, **place}


def _highest_of_interest(comparison: Comparison) -> float | None:
    """So that the first steps do not flatten all that comes after: the loss after a twentieth of the run, of most runs."""
    losses = []
    for run in comparison.comparable:
        steps, values = _finite(*run.series("train/loss"))
        if len(steps) > 1:
            losses.append(float(np.interp(run.steps / 20, steps, smooth(values))))
    return float(np.median(losses)) * 1.03 if losses else None


def surface_figures(comparison: Comparison) -> list[tuple[str, Figure, str]]:
    """(heading, figure, remark) of every response surface for which there are runs enough."""
    axes = axes_of(comparison)
    figures: list[tuple[str, Figure, str]] = []
    for axis in axes:
        curves = curves_over(comparison, axis, axes)
        if curves:
            figures.append((f"Final loss over {_named(axis)}", _curve_figure(curves, axis), _remark(curves, axis)))
    for x_axis, y_axis in combinations(axes, 2):
        for grid in grids_over(comparison, x_axis, y_axis, axes):
            heading = f"Final loss over {_named(x_axis)} and {_named(y_axis)}"
            figures.append((heading, _grid_figure(grid), f"All with {grid.name}." if grid.name else ""))
    return figures


def _named(axis: Axis) -> str:
    return axis.label.removesuffix(", %")


def _curve_figure(curves: Sequence[Curve], axis: Axis) -> Figure:
    traces: list[Figure] = []
    starred = False
    for n, curve in enumerate(curves):
        colour, dash = COLOURS[n % len(COLOURS)], DASHES[n // len(COLOURS) % len(DASHES)]
        name = plain(curve.name or "runs")
        points = {"x": curve.x.tolist(), "y": curve.loss.tolist(), "mode": "markers", "name": name}
        traces.append({**points, "marker": {"color": colour, "size": 10, "symbol": SYMBOLS[n % len(SYMBOLS)]}})
        a, b, c = curve.fit
        ends = [math.log10(x) if axis.logarithmic else float(x) for x in curve.x[[0, -1]]]
        places = np.linspace(ends[0], ends[1], 101)
        x = 10**places if axis.logarithmic else places
        line = {"color": colour, "dash": dash, "width": 2}
        fitted = {"x": _digits(x), "y": _digits(a * places**2 + b * places + c), "mode": "lines", "name": "parabola"}
        traces.append({**fitted, "line": line, "hoverinfo": "skip", "showlegend": len(curves) == 1})
        if curve.lowest is not None:
            at, loss = curve.lowest
            star = {"color": "white", "size": 16, "symbol": "star", "line": {"color": colour, "width": 2}}
            lowest = {"x": [at], "y": [loss], "mode": "markers", "marker": star, "showlegend": not starred}
            traces.append({**lowest, "name": "lowest of the parabola", "legendrank": 2000})
            starred = True
    gridded = {"gridcolor": "#e6e6e6", "zeroline": False, "ticks": "outside", "tickcolor": "#999"}
    tried = sorted({float(x) for curve in curves for x in curve.x})
    ticks = {"tickvals": tried, "ticktext": [f"{x:g}" for x in tried]} if len(tried) <= 9 else {}
    kind = {"type": "log"} if axis.logarithmic else {}
    return {
        "data": traces,
        "layout": {
            **_small_layout(),
            "xaxis": {**gridded, **kind, **ticks, "title": {"text": plain(axis.label)}},
            "yaxis": {**gridded, "title": {"text": "mean validation loss, nats per token"}},
        },
    }


def _remark(curves: Sequence[Curve], axis: Axis) -> str:
    sentences = []
    for curve in curves:
        where = f"With {curve.name}: " if len(curves) > 1 and curve.name else ""
        values = len(set(curve.x))
        best = curve.x[int(np.argmin(curve.loss))]
        if curve.lowest is not None:
            said = f"the parabola through {values} values is lowest at {curve.lowest[0]:.3g} ({curve.lowest[1]:.3f})"
        elif best in (curve.x[0], curve.x[-1]):
            said = f"the lowest loss is at the edge, {best:g}: values beyond it may be better"
        else:
            said = "no parabola fits: it has no minimum among the values tried"
        sentences.append(f"{where}{said}.")
    if any(curve.lowest is not None and len(curve.x) == 3 for curve in curves):
        sentences.append("three points fix a parabola, so nothing says how well it fits.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _grid_figure(grid: Grid) -> Figure:
    text = [["" if math.isnan(loss) else f"{loss:.3f}" for loss in row] for row in grid.loss]
    row, column = np.unravel_index(int(np.nanargmin(grid.loss)), grid.loss.shape)
    text[row][column] = f"<b>{text[row][column]} ★</b>"
    heat = {
        "type": "heatmap",
        "x": [f"{x:g}" for x in grid.x],
        "y": [f"{y:g}" for y in grid.y],
        "z": [[float(loss) for loss in row] for row in grid.loss],
        "text": text,
        "texttemplate": "%{text}",
        "colorscale": "Cividis",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "hovertemplate": "%{x}, %{y}: %{z:.4f}<extra></extra>",
        "colorbar": {"title": {"text": "validation<br>loss, mean"}},
    }
    axis = {"type": "category", "showgrid": False}
    titles = [{"text": plain(label.label)} for label in (grid.x_axis, grid.y_axis)]
    layout = {**_small_layout(), "xaxis": {**axis, "title": titles[0]}, "yaxis": {**axis, "title": titles[1]}}
    return {"data": [heat], "layout": layout}


def _small_layout() -> Figure:
    legend = {"font": {"size": 13}, "orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    margin = {"l": 75, "r": 20, "t": 30, "b": 60}
    return {"height": 450, "margin": margin, "font": _FONT, "plot_bgcolor": "white", "legend": legend}


def _looks(comparison: Comparison) -> dict[str, tuple[str, str, str]]:
    """(colour, dash, symbol) of each comparable run: colour and symbol for the candidate, a dash for each of its seeds."""
    looks: dict[str, tuple[str, str, str]] = {}
    groups: dict[str, int] = {}
    for n, candidate in enumerate(comparison.candidates):
        groups |= {run.name: n for run in candidate.runs}
    groups |= {name: groups[twin] for name, twin in comparison.twins.items() if twin in groups}
    seeds: dict[int, int] = {}
    for run in comparison.comparable:
        group = groups.setdefault(run.name, len(set(groups.values())))
        seed = seeds[group] = seeds.get(group, -1) + 1
        dash = DASHES[(group // len(COLOURS) + seed) % len(DASHES)]
        looks[run.name] = COLOURS[group % len(COLOURS)], dash, SYMBOLS[group % len(SYMBOLS)]
    return looks


def legend_name(comparison: Comparison, run: Run) -> str:
    """What a run is called in a chart: what sets it apart, and its state where that is not that it is done."""
    name = comparison.name_of(run) if run in comparison.comparable else run.name
    if run in comparison.comparable and name != run.name and "seed" in comparison.differing:
        name += f", seed {run.settings.get('seed')}"
    name = shortened(name, _LONGEST)
    return name if run.state is State.DONE else f"{name} ({run.state})"


def plain(text: str) -> str:
    """Text for Plotly, which would take some HTML for what it says."""
    return escape(text, quote=False)


def _finite(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points, evenly chosen, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_POINTS)).round().astype(int))
    return steps[chosen], values[chosen]


def _digits(values: np.ndarray) -> list[float]:
    """Six digits: more would only make the page larger."""
    return [float(f"{value:.6g}") for value in values]
