"""The final loss as a function of the settings that a sweep varies: the learning rate and the mix weights."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.comparison.comparison import Comparison
from analysis.comparison.parabola_fit import Parabola, UnclearOptimum, find_optimum
from analysis.comparison.run import Run
from analysis.comparison.run_settings import setting_text

LEARNING_RATE = "optimizer.lr"
_LOSS = "val/loss/mean"
_WEIGHTS = re.compile(r"curriculum\.(?:keyframes\.(?P<keyframe>.+)\.weights|mixes\.(?P<mix>[^.]+))\.(?P<source>.+)")
_FEWEST = 3  # values on the axis of a curve
_FILLED = 0.5  # fraction of a heat map's cells that have runs


@dataclass(frozen=True)
class SweptAxis:
    """A setting that differs between runs."""

    label: str
    keys: frozenset[str]
    """Settings that change together with this axis, because the weights of one keyframe are shares of a whole."""
    values: Mapping[str, float]
    """Name of the run -> value."""
    logarithmic: bool
    said: Mapping[str, str] = field(default_factory=dict)
    """Name of the run -> what was set, if the axis shows something else."""

    def place(self, run: Run) -> float:
        """Position of the run on the axis; on a logarithmic axis, the logarithm to base 10."""
        value = self.values[run.name]
        return math.log10(value) if self.logarithmic else value


@dataclass(frozen=True)
class LossCurve:
    """Runs that differ only in one axis and in the seed."""

    name: str  # what these runs have in common and runs of other curves do not
    runs: tuple[Run, ...]  # by ascending x
    x: np.ndarray  # (runs,)
    loss: np.ndarray  # (runs,)
    optimum: Parabola | UnclearOptimum
    """As a function of x, or of log10 x on a logarithmic axis."""


@dataclass(frozen=True)
class LossGrid:
    """Mean loss over two axes."""

    x_axis: SweptAxis
    y_axis: SweptAxis
    x: list[float]
    y: list[float]
    loss: np.ndarray  # (y, x); NaN where there is no run
    name: str


def swept_axes(comparison: Comparison) -> list[SweptAxis]:
    """The axes in which the ranked runs differ: learning rate and shares of sources.

    Args:
        comparison: the compared runs.
    """
    runs = comparison.ranked
    axes = []
    rates = {run.name: _number(run.settings.get(LEARNING_RATE)) for run in runs}
    if len(set(rates.values())) > 1 and all(rate > 0 for rate in rates.values()):
        axes.append(SweptAxis("peak learning rate", frozenset({LEARNING_RATE}), rates, logarithmic=True))
    families: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        if (match := _WEIGHTS.fullmatch(key)) is not None:
            where = f"at keyframe {match['keyframe']}" if match["keyframe"] else f"in mix {match['mix']}"
            families.setdefault(where, {})[key] = match["source"]
    for where, sources in families.items():
        axes += _share_axes(runs, where, sources)
    return axes


def _share_axes(runs: Sequence[Run], where: str, sources: Mapping[str, str]) -> list[SweptAxis]:
    """The fewest sources whose shares determine all shares."""
    weights = np.array([[_number(run.settings.get(key, 0.0)) for key in sources] for run in runs])
    totals = weights.sum(axis=1, keepdims=True)
    if not (np.isfinite(weights).all() and (totals > 0).all()):
        return []
    shares = weights / totals
    moving = [n for n in range(shares.shape[1]) if np.ptp(shares[:, n]) > 1e-9]
    keys = frozenset(key for n, key in enumerate(sources) if len({weight for weight in weights[:, n]}) > 1)
    moving.sort(key=lambda n: list(sources)[n] not in keys)  # sources whose weight was set come first
    chosen: list[int] = []
    for n in moving:
        centred = shares[:, [*chosen, n]] - shares[:, [*chosen, n]].mean(axis=0)
        if np.linalg.matrix_rank(centred, tol=1e-9) > len(chosen):
            chosen.append(n)
    names = list(sources.values())
    return [
        SweptAxis(
            f"share of {names[n]} {where}, %",
            keys,
            {run.name: round(100 * float(shares[k, n]), 6) for k, run in enumerate(runs)},
            logarithmic=False,
            said={run.name: f"{names[n]}={weights[k, n]:g}" for k, run in enumerate(runs)},
        )
        for n in chosen
    ]


def loss_curves(comparison: Comparison, axis: SweptAxis, others: Sequence[SweptAxis]) -> list[LossCurve]:
    """One curve for each group of runs that differ only in `axis` and the seed, if it has at least three values of `axis`.

    Args:
        comparison: the compared runs.
        axis: the axis to plot along.
        others: all swept axes, `axis` included.
    """
    curves = []
    noise, effects = comparison.noise(_LOSS), comparison.seed_effects(_LOSS)
    for name, runs in _alike(comparison, [axis], others):
        x, loss = np.array([axis.values[run.name] for run in runs]), _losses(runs)
        places = np.array([axis.place(run) for run in runs])
        if len(set(places)) >= _FEWEST:
            order = np.argsort(places, kind="stable")
            level = loss - np.array([effects.get(run.name, 0.0) for run in runs])
            n_seeds = len({run.seed for run in runs}) if effects else 1
            found = find_optimum(places, level, noise=noise.deviation if noise else None, n_seeds=n_seeds)
            curves.append(LossCurve(name, tuple(runs[n] for n in order), x[order], loss[order], found))
    return curves


def loss_grids(
    comparison: Comparison, x_axis: SweptAxis, y_axis: SweptAxis, others: Sequence[SweptAxis]
) -> list[LossGrid]:
    """A grid for every group of runs that differ only in two axes and in the seed, if half of the grid's cells have
    runs.

    Args:
        comparison: the compared runs.
        x_axis: horizontal axis of the grid.
        y_axis: vertical axis of the grid.
        others: all swept axes, `x_axis` and `y_axis` included.
    """
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
            grids.append(LossGrid(x_axis, y_axis, x, y, loss, name))
    return grids


def _alike(
    comparison: Comparison, free: Sequence[SweptAxis], others: Sequence[SweptAxis]
) -> list[tuple[str, list[Run]]]:
    """The ranked runs with a finite loss, grouped by everything except the free axes."""
    freed = frozenset().union(*(axis.keys for axis in free))
    fixed = [axis for axis in others if axis not in free]  # shares of the same keyframe as a free one
    groups: dict[str, list[Run]] = {}
    names: dict[str, str] = {}
    for run in (run for candidate in comparison.candidates for run in candidate.runs):
        if math.isfinite(run.final[_LOSS]):
            rest = {key: setting_text(value) for key, value in run.deciding.items() if key not in freed}
            shares = {axis.label: axis.values[run.name] for axis in fixed if axis.keys & freed}
            identity = setting_text({**rest, **shares})
            groups.setdefault(identity, []).append(run)
            told = [
                f"{comparison.short_names.get(key, key)}={setting_text(run.described[key])}"
                for key in comparison.deciding
                if key in rest
            ]
            names[identity] = ", ".join([*told, *(f"{label} {share:.4g}" for label, share in shares.items())])
    return [(names[identity], runs) for identity, runs in groups.items()]


def _losses(runs: Sequence[Run]) -> np.ndarray:
    return np.array([run.final[_LOSS] for run in runs])


def _number(value: Any) -> float:
    """The value as a float; NaN unless it is a finite number of 0 or more."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    return float(value) if number else math.nan
