"""The loss charts of a comparison, as Plotly figures: plain dicts of traces and layout."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from analysis.comparison.comparison import Comparison
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_labels import run_labels
from analysis.metrics_reader import Series
from analysis.plot_colours import COLOURS
from analysis.series_downsampling import finite, means, smooth

Figure = dict[str, Any]
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_MOST_POINTS = 500  # per curve: a page with forty runs stays small, and a screen cannot show more
_MOST_SMOOTHED = 4000  # values; longer series are averaged over neighbours first
MOST_SHOWN = 12
"""Runs that are visible at first in the loss charts, the best of the compared ones. The others are in the legend."""
_MARKS = 6  # markers on a training curve: colours are hard to tell apart in greyscale
FONT = {"family": "system-ui, sans-serif", "size": 15, "color": "#222"}


def loss_figure(comparison: Comparison) -> tuple[Figure, list[dict[str, Any]]]:
    """Training and validation loss side by side, and the x values of each trace.

    The script of the page sets x to `steps`, to `steps` times `tokens` or `flops` (both per step), or to `hours`.

    Args:
        comparison: the compared runs.
    """
    traces, axes = [], []
    looks, labels = _looks(comparison), run_labels(comparison)
    shown = [run for run in comparison.runs if run.metrics.n_rows and run.state is not RunState.MISSING]
    shown.sort(key=lambda run: (run.name not in looks, run.final.get("val/loss/mean", math.inf)))
    for n, run in enumerate(shown):
        colour, dash, symbol = looks.get(run.name, ("#999999", "dot", "x"))
        label = labels[run.name]
        first = True
        for panel, key in (("", "train/loss"), ("2", "val/loss/mean")):
            steps, values = finite(run.metrics.series(key)) if panel else _smoothed(run)
            if not len(steps):
                continue
            if not panel:
                steps, values = _thin(steps, values)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": plain(label.short),
                    "meta": plain(label.full),
                    "legendgroup": run.name,
                    "showlegend": first,
                    "visible": True if run.name in looks and n < MOST_SHOWN else "legendonly",
                    "xaxis": f"x{panel}",
                    "yaxis": f"y{panel}",
                    "y": round_to_six_digits(values),
                    "line": {"color": colour, "dash": dash, "width": 2},
                    "marker": {"size": 8, "symbol": symbol, "maxdisplayed": 0 if panel else _MARKS},
                    "hovertemplate": "%{y:.4f}<extra>%{meta}</extra>",
                }
            )
            tokens = run.tokens_per_step
            axes.append(
                {
                    "steps": steps.tolist(),
                    "hours": round_to_six_digits(run.hours_at(steps)),
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
        "font": FONT,
        "hovermode": "x",
        "hoverlabel": {"namelength": -1},
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
    """The range of an axis, from the lowest visible value to `highest`."""
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
    """Median loss of the runs after a twentieth of their steps, so that the first steps do not flatten the rest."""
    losses = []
    for run in comparison.comparable:
        steps, values = _smoothed(run)
        if len(steps) > 1:
            losses.append(float(np.interp(run.steps / 20, steps, values)))
    return float(np.median(losses)) * 1.03 if losses else None


def _looks(comparison: Comparison) -> dict[str, tuple[str, str, str]]:
    """(colour, dash, symbol) of each compared run. Colour and symbol stand for the candidate, the dash for the seed."""
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


def plain(text: str) -> str:
    """Escape text for Plotly, which interprets some HTML."""
    return escape(text, quote=False)


def _smoothed(run: Run) -> Series:
    """The smoothed training loss of a run."""
    steps, values = means(finite(run.metrics.series("train/loss")), most=_MOST_SMOOTHED)
    return steps, smooth(values)


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evenly chosen points, including the first and the last."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_POINTS)).round().astype(int))
    return steps[chosen], values[chosen]


def round_to_six_digits(values: np.ndarray) -> list[float]:
    """Round to six digits; more would only enlarge the page."""
    return [float(f"{value:.6g}") for value in values]
