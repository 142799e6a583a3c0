"""Charts of the response surfaces, as Plotly figures."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from analysis.comparison.comparison import Comparison
from analysis.comparison.loss_charts import DASHES, FONT, SYMBOLS, Figure, plain, round_to_six_digits
from analysis.comparison.parabola_fit import Parabola, UnclearOptimum
from analysis.comparison.response_surfaces import LossCurve, LossGrid, SweptAxis, loss_curves, loss_grids, swept_axes
from analysis.comparison.run import Run
from analysis.comparison.run_labels import RunLabel, run_labels
from analysis.plot_colours import COLOURS

_MOST_TICKS = 9


def response_surface_figures(comparison: Comparison) -> list[tuple[str, Figure, str]]:
    """(heading, figure, remark) of every response surface with enough runs.

    Args:
        comparison: the compared runs.
    """
    axes = swept_axes(comparison)
    figures: list[tuple[str, Figure, str]] = []
    labels = run_labels(comparison)
    for axis in axes:
        curves = loss_curves(comparison, axis, axes)
        if curves:
            figures.append(
                (f"Final loss over {_named(axis)}", _curve_figure(curves, axis, labels), _remark(curves, axis))
            )
    for x_axis, y_axis in combinations(axes, 2):
        for grid in loss_grids(comparison, x_axis, y_axis, axes):
            heading = f"Final loss over {_named(x_axis)} and {_named(y_axis)}"
            figures.append((heading, _grid_figure(grid), f"All with {grid.name}." if grid.name else ""))
    return figures


def _named(axis: SweptAxis) -> str:
    return axis.label.removesuffix(", %")


def _curve_figure(curves: Sequence[LossCurve], axis: SweptAxis, labels: Mapping[str, RunLabel]) -> Figure:
    traces: list[Figure] = []
    named: set[str] = set()  # kinds of lines already in the legend
    for n, curve in enumerate(curves):
        colour, dash = COLOURS[n % len(COLOURS)], DASHES[n // len(COLOURS) % len(DASHES)]
        marker = {"color": colour, "size": 10, "symbol": SYMBOLS[n % len(SYMBOLS)]}
        said = [plain(_said(run, axis, labels)) for run in curve.runs]
        points = {"x": curve.x.tolist(), "y": curve.loss.tolist(), "mode": "markers", "marker": marker, "text": said}
        traces.append(
            {**points, "name": plain(curve.name or "runs"), "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>"}
        )
        line = {"color": colour, "dash": dash, "width": 2}
        if isinstance(curve.optimum, Parabola):
            places = np.linspace(*curve.optimum.ends, 101)
            x, y, name = 10**places if axis.logarithmic else places, curve.optimum(places), "parabola, least squares"
        else:
            x = np.unique(curve.x)
            y, name = np.array([curve.loss[curve.x == value].mean() for value in x]), "mean of each value"
            line["width"] = 1
        drawn = {"x": round_to_six_digits(x), "y": round_to_six_digits(y), "mode": "lines", "name": name, "line": line}
        traces.append({**drawn, "hoverinfo": "skip", "showlegend": name not in named})
        named.add(name)
        if isinstance(curve.optimum, Parabola):
            star = {"color": "white", "size": 16, "symbol": "star", "line": {"color": colour, "width": 2}}
            at = _value_at(curve.optimum, axis)
            lowest = {
                "x": [at],
                "y": [curve.optimum.loss],
                "mode": "markers",
                "marker": star,
                "showlegend": "star" not in named,
            }
            hover = "%{x:.3g}: %{y:.4f}<extra>minimum of the parabola</extra>"
            traces.append({**lowest, "name": "minimum of the parabola", "legendrank": 2000, "hovertemplate": hover})
            named.add("star")
    gridded = {"gridcolor": "#e6e6e6", "zeroline": False, "ticks": "outside", "tickcolor": "#999", "automargin": True}
    tried = sorted({float(x) for curve in curves for x in curve.x})
    ticks = {"tickvals": tried, "ticktext": tick_texts(tried)} if len(tried) <= _MOST_TICKS else {}
    kind = {"type": "log"} if axis.logarithmic else {}
    return {
        "data": traces,
        "layout": {
            **_small_layout(),
            "xaxis": {**gridded, **kind, **ticks, "title": {"text": plain(axis.label), "standoff": 14}},
            "yaxis": {**gridded, "title": {"text": "mean validation loss, nats per token", "standoff": 12}},
        },
    }


def tick_texts(values: Sequence[float]) -> list[str]:
    """The values with three digits, or with as many digits as are needed to distinguish all values.

    Args:
        values: values of the ticks.
    """
    for digits in range(3, 18):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _said(run: Run, axis: SweptAxis, labels: Mapping[str, RunLabel]) -> str:
    """Hover text of a run in a curve: its settings, and its value on the axis."""
    value = f"{axis.label.removesuffix(', %')} {axis.values[run.name]:.3g}{' %' if axis.label.endswith(', %') else ''}"
    return f"{labels[run.name].full}: {value}" if axis.said else labels[run.name].full


def _value_at(parabola: Parabola, axis: SweptAxis) -> float:
    return float(10**parabola.at) if axis.logarithmic else parabola.at


def _remark(curves: Sequence[LossCurve], axis: SweptAxis) -> str:
    sentences = []
    for curve in curves:
        where = f"With {curve.name}: " if len(curves) > 1 and curve.name else ""
        tried = np.unique(curve.x)
        means = [curve.loss[curve.x == value].mean() for value in tried]
        best = f"{tried[int(np.argmin(means))]:.3g}"
        match curve.optimum:
            case Parabola() as found:
                at = f"{_value_at(found, axis):.3g} ({found.loss:.3f})"
                among = f"{found.n_values} values around the best, {found.n_runs} runs"
                said = f"the least-squares parabola ({among}) has its minimum at {at}"
            case UnclearOptimum.EDGE:
                said = f"the lowest loss is at the edge, {best}: values beyond it may be better"
            case UnclearOptimum.FEW:
                said = f"the lowest loss is at {best}; no parabola is fitted, because there are fewer than four values around it"
            case _:
                said = f"the lowest loss is at {best}; an optimum between the values is not significant"
        sentences.append(f"{where}{said}.")
    sentences += _weights_as_shares(curves, axis)
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _weights_as_shares(curves: Sequence[LossCurve], axis: SweptAxis) -> list[str]:
    """A sentence with the share of each weight, if every weight has one share and the two differ."""
    pairs = {(axis.said[run.name], axis.values[run.name]) for curve in curves for run in curve.runs if axis.said}
    weights = {said for said, _ in pairs}
    plainly = all(float(said.rpartition("=")[2]) * 100 == share for said, share in pairs)
    if plainly or not len(pairs) == len(weights) <= _MOST_TICKS:
        return []
    shares = ", ".join(f"{said} is {share:.3g} %" for said, share in sorted(pairs, key=lambda pair: pair[1]))
    return [f"weights are shares of their sum: {shares}."]


def _grid_figure(grid: LossGrid) -> Figure:
    text = [["" if math.isnan(loss) else f"{loss:.3f}" for loss in row] for row in grid.loss]
    row, column = np.unravel_index(int(np.nanargmin(grid.loss)), grid.loss.shape)
    text[row][column] = f"<b>{text[row][column]} ★</b>"
    heat = {
        "type": "heatmap",
        "x": tick_texts(grid.x),
        "y": tick_texts(grid.y),
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
    axis = {"type": "category", "showgrid": False, "automargin": True}
    titles = [{"text": plain(label.label), "standoff": 14} for label in (grid.x_axis, grid.y_axis)]
    layout = {**_small_layout(), "xaxis": {**axis, "title": titles[0]}, "yaxis": {**axis, "title": titles[1]}}
    return {"data": [heat], "layout": layout}


def _small_layout() -> Figure:
    legend = {"font": {"size": 13}, "orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    margin = {"l": 75, "r": 20, "t": 30, "b": 60}
    return {"height": 450, "margin": margin, "font": FONT, "plot_bgcolor": "white", "legend": legend}
