"""The final loss as a function of the settings that a sweep turns: the learning rate, and the weights of the mix."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.comparison.comparing import Comparison
from analysis.comparison.run import Run
from analysis.comparison.settings import text_of

LEARNING_RATE = "optimizer.lr"
_WEIGHTS = re.compile(r"curriculum\.(?:keyframes\.(?P<keyframe>.+)\.weights|mixes\.(?P<mix>[^.]+))\.(?P<source>.+)")
_FEWEST = 3  # values on an axis, for a parabola
_FILLED = 0.5  # share of a grid's cells, for a heat map


@dataclass(frozen=True)
class Axis:
    """A setting that runs differ in."""

    label: str
    keys: frozenset[str]
    """Settings that change with it: weights of one keyframe are shares of a whole."""
    values: Mapping[str, float]
    """By name of the run."""
    logarithmic: bool

    def place(self, run: Run) -> float:
        """Where the run lies on the axis, evenly drawn."""
        value = self.values[run.name]
        return math.log10(value) if self.logarithmic else value


@dataclass(frozen=True)
class Curve:
    """Runs that differ in one axis, and their seeds."""

    name: str  # what else they have in common and other curves have not
    x: np.ndarray  # (runs,)
    loss: np.ndarray  # (runs,)
    fit: tuple[float, float, float]
    """(a, b, c) of a x^2 + b x + c, x its logarithm to base 10 on a logarithmic axis."""
    lowest: tuple[float, float] | None
    """(x, loss) of the parabola's minimum; None: it has none, or it lies outside the values tried."""


@dataclass(frozen=True)
class Grid:
    """Mean loss over two axes."""

    x_axis: Axis
    y_axis: Axis
    x: list[float]
    y: list[float]
    loss: np.ndarray  # (y, x); NaN where there is no run
    name: str


def axes_of(comparison: Comparison) -> list[Axis]:
    """The learning rate and the shares in which the ranked runs differ."""
    runs = comparison.ranked
    axes = []
    rates = {run.name: _number(run.settings.get(LEARNING_RATE)) for run in runs}
    if len(set(rates.values())) > 1 and all(rate > 0 for rate in rates.values()):
        axes.append(Axis("peak learning rate", frozenset({LEARNING_RATE}), rates, logarithmic=True))
    families: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        if (match := _WEIGHTS.fullmatch(key)) is not None:
            where = f"at keyframe {match['keyframe']}" if match["keyframe"] else f"in mix {match['mix']}"
            families.setdefault(where, {})[key] = match["source"]
    for where, sources in families.items():
        axes += _share_axes(runs, where, sources)
    return axes


def _share_axes(runs: Sequence[Run], where: str, sources: Mapping[str, str]) -> list[Axis]:
    """As few of the sources as say what all shares are."""
    weights = np.array([[_number(run.settings.get(key, 0.0)) for key in sources] for run in runs])
    totals = weights.sum(axis=1, keepdims=True)
    if not (np.isfinite(weights).all() and (totals > 0).all()):
        return []
    shares = weights / totals
    moving = [n for n in range(shares.shape[1]) if np.ptp(shares[:, n]) > 1e-9]
    keys = frozenset(key for n, key in enumerate(sources) if len({weight for weight in weights[:, n]}) > 1)
    moving.sort(key=lambda n: list(sources)[n] not in keys)  # first what was set: others only follow
    chosen: list[int] = []
    for n in moving:
        centred = shares[:, [*chosen, n]] - shares[:, [*chosen, n]].mean(axis=0)
        if np.linalg.matrix_rank(centred, tol=1e-9) > len(chosen):
            chosen.append(n)
    names = list(sources.values())
    return [
        Axis(
            f"share of {names[n]} {where}, %",
            keys,
            {run.name: round(100 * float(shares[k, n]), 6) for k, run in enumerate(runs)},
            logarithmic=False,
        )
        for n in chosen
    ]


def curves_over(comparison: Comparison, axis: Axis, others: Sequence[Axis]) -> list[Curve]:
    """A curve for every group of runs that differ in this axis and their seeds alone, and have three values of it or more."""
    curves = []
    for name, runs in _alike(comparison, [axis], others):
        x, loss = np.array([axis.values[run.name] for run in runs]), _losses(runs)
        places = np.array([axis.place(run) for run in runs])
        if len(set(places)) >= _FEWEST:
            order = np.argsort(places, kind="stable")
            fit, lowest = parabola(places, loss)
            if lowest is not None and axis.logarithmic:
                lowest = (10 ** lowest[0], lowest[1])
            curves.append(Curve(name, x[order], loss[order], fit, lowest))
    return curves


def parabola(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float] | None]:
    """((a, b, c), minimum) of the parabola a x^2 + b x + c nearest to the points; no minimum beyond the values of x."""
    centre = float(x.mean())
    a, slope, level = (float(c) for c in np.polyfit(x - centre, y, 2))
    b, c = slope - 2 * a * centre, level - slope * centre + a * centre**2
    at = centre - slope / (2 * a) if a > 0 else math.nan
    inside = a > 0 and x.min() <= at <= x.max()
    return (a, b, c), (at, level - slope**2 / (4 * a)) if inside else None


def grids_over(comparison: Comparison, x_axis: Axis, y_axis: Axis, others: Sequence[Axis]) -> list[Grid]:
    """A grid for every group of runs that differ in these two axes and their seeds alone, where half the cells have runs."""
    grids = []
    for name, runs in _alike(comparison, [x_axis, y_axis], others):
        x = sorted({x_axis.values[run.name] for run in runs})
        y = sorted({y_axis.values[run.name] for run in runs})
        cells: dict[tuple[int, int], list[float]] = {}
        for run, loss in zip(runs, _losses(runs), strict=True):
            place = y.index(y_axis.values[run.name]), x.index(x_axis.values[run.name])
            cells.setdefault(place, []).append(float(loss))
        if len(x) >= 2 and len(y) >= 2 and len(cells) >= max(4, _FILLED * len(x) * len(y)):
            loss = np.full((len(y), len(x)), math.nan)
            for place, values in cells.items():
                loss[place] = math.fsum(values) / len(values)
            grids.append(Grid(x_axis, y_axis, x, y, loss, name))
    return grids


def _alike(comparison: Comparison, free: Sequence[Axis], others: Sequence[Axis]) -> list[tuple[str, list[Run]]]:
    """The ranked runs by all that they have in common beside the free axes; those whose loss is finite."""
    freed = frozenset().union(*(axis.keys for axis in free))
    fixed = [axis for axis in others if axis not in free]  # shares of the same keyframe as a free one
    groups: dict[str, list[Run]] = {}
    names: dict[str, str] = {}
    for run in (run for candidate in comparison.candidates for run in candidate.runs):
        if math.isfinite(run.final["val/loss/mean"]):
            rest = {key: text_of(value) for key, value in run.deciding.items() if key not in freed}
            shares = {axis.label: axis.values[run.name] for axis in fixed if axis.keys & freed}
            identity = text_of({**rest, **shares})
            groups.setdefault(identity, []).append(run)
            told = [
                f"{comparison.short_names.get(key, key)}={text_of(run.described[key])}"
                for key in comparison.deciding
                if key in rest
            ]
            names[identity] = ", ".join([*told, *(f"{label} {share:.4g}" for label, share in shares.items())])
    return [(names[identity], runs) for identity, runs in groups.items()]


def _losses(runs: Sequence[Run]) -> np.ndarray:
    return np.array([run.final["val/loss/mean"] for run in runs])


def _number(value: Any) -> float:
    """NaN for what is no finite number of 0 or more."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    return float(value) if number else math.nan
