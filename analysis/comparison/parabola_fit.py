"""Fit a parabola around the best value of a setting, to estimate where the loss is lowest."""

import math
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from analysis.comparison.tukey_test import CONFIDENCE

_NEIGHBOURS = 2  # values on each side of the best
_FEWEST = 4  # values: with fewer, the quality of the fit is unknown
_ROUNDING = 1e-9


class UnclearOptimum(Enum):
    """Why no optimum is claimed."""

    EDGE = auto()  # the best value is the first or the last one tried
    FEW = auto()  # fewer than four values around the best
    NOISE = auto()  # noise could explain the curvature, or the parabola's minimum is below all losses


class Parabola(NamedTuple):
    """a x^2 + b x + c by least squares, with the minimum `loss` at `at`."""

    a: float
    b: float
    c: float
    at: float
    loss: float
    ends: tuple[float, float]
    """Smallest and largest of the fitted values of x."""
    n_values: int
    n_runs: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = self.a * x**2 + self.b * x + self.c
        return y


def find_optimum(
    x: np.ndarray, loss: np.ndarray, *, noise: float | None, n_seeds: int = 1
) -> Parabola | UnclearOptimum:
    """The parabola around the best value, if the minimum is significant.

    Args:
        x: (runs,), the values of the setting.
        loss: (runs,), without the effects of the seeds.
        noise: standard deviation of a run; None: unknown, and the residual of the fit is used.
        n_seeds: number of seeds whose effects were removed; each seed except one costs a degree of freedom.

    Returns:
        The parabola, or why there is none.
    """
    tried = np.unique(x)
    means = np.array([loss[x == value].mean() for value in tried])
    best = int(np.argmin(means))
    if best in (0, len(tried) - 1):
        return UnclearOptimum.EDGE
    around = tried[max(0, best - _NEIGHBOURS) : best + _NEIGHBOURS + 1]
    chosen = np.isin(x, around)
    degrees = int(chosen.sum()) - 3 - (n_seeds - 1)
    if len(around) < _FEWEST or degrees < 1:
        return UnclearOptimum.FEW
    centre = float(around.mean())
    design = np.stack([(x[chosen] - centre) ** 2, x[chosen] - centre, np.ones(int(chosen.sum()))], axis=1)
    effects = np.linalg.lstsq(design, loss[chosen])[0]
    residual = math.sqrt(float(np.square(loss[chosen] - design @ effects).sum()) / degrees)
    error = residual * math.sqrt(float(np.linalg.inv(design.T @ design)[0, 0]))
    from scipy import special  # slow to import

    a, slope, level = (float(effect) for effect in effects)
    if a <= special.stdtrit(degrees, (1 + CONFIDENCE) / 2) * error:
        return UnclearOptimum.NOISE
    at, lowest = centre - slope / (2 * a), level - slope**2 / (4 * a)
    deepest = float(means.min()) - (residual if noise is None else noise) - _ROUNDING * abs(level)
    if not around[0] <= at <= around[-1] or lowest < deepest:
        return UnclearOptimum.NOISE
    b, c = slope - 2 * a * centre, level - slope * centre + a * centre**2
    return Parabola(a, b, c, at, lowest, (float(around[0]), float(around[-1])), len(around), int(chosen.sum()))
