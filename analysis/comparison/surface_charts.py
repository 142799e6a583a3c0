"""The charts of the response surfaces, as Plotly's figures."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.comparison.charts import DASHES, FONT, SYMBOLS, Figure, plain, six_digits
from analysis.comparison.comparing import Comparison
from analysis.comparison.surfaces import Axis, Curve, Grid, axes_of, curves_over, grids_over
from analysis.pictures import COLOURS


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
        fitted = {
            "x": six_digits(x),
            "y": six_digits(a * places**2 + b * places + c),
            "mode": "lines",
            "name": "parabola",
        }
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
    return {"height": 450, "margin": margin, "font": FONT, "plot_bgcolor": "white", "legend": legend}
