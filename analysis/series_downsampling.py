"""Shorten series to the width of a plot, and smooth series."""

import math

import numpy as np

from analysis.metrics_reader import Series


def finite(series: Series) -> Series:
    """The points with a finite value."""
    steps, values = series
    kept = np.isfinite(values)
    return steps[kept], values[kept]


def extremes(series: Series, *, most: int) -> Series:
    """The smallest and largest value of each of up to `most` / 2 groups of neighbours, to preserve a line's look.

    Args:
        series: (steps, values), both (n,).
        most: maximum number of points.
    """
    steps, values = series
    if len(steps) <= most:
        return series
    groups = np.array_split(np.arange(len(steps)), most // 2)
    places = [at[[values[at].argmin(), values[at].argmax()]] for at in groups]
    kept = np.unique(np.concatenate(places))
    return steps[kept], values[kept]


def band(steps: np.ndarray, values: np.ndarray, *, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first step, smallest, largest value) of each of up to `most` groups of neighbours; values (lines, steps).

    Args:
        steps: (n,).
        values: (lines, n).
        most: maximum number of groups.
    """
    starts = np.unique(np.linspace(0, len(steps), min(most, len(steps)), endpoint=False).astype(int))
    least, greatest = values.min(axis=0), values.max(axis=0)
    return steps[starts], np.minimum.reduceat(least, starts), np.maximum.reduceat(greatest, starts)


def thin(series: Series, *, most: int) -> Series:
    """Up to `most` of the points, including the first and last, for smooth lines; values (n,) or (lines, n).

    Args:
        series: (steps, values).
        most: maximum number of points.
    """
    steps, values = series
    kept = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    return steps[kept], values[..., kept]


def means(series: Series, *, most: int) -> Series:
    """The mean step and value of each of up to `most` groups of neighbours.

    Args:
        series: (steps, values), both (n,).
        most: maximum number of points.
    """
    steps, values = series
    if len(steps) <= most:
        return series
    starts = np.linspace(0, len(steps), most, endpoint=False).astype(int)
    sizes = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(values, starts) / sizes


def smooth(values: np.ndarray) -> np.ndarray:
    """Smooth by local linear regression: at each value, a least-squares line weighted by a Gaussian of width n / 40.

    A moving mean would bend at both ends, where neighbours are on one side only; a line does not. Towards the ends the
    Gaussian grows to twice its width, so that there are enough neighbours for a slope. Meant for up to a few thousand
    values.

    Args:
        values: (n,).

    Returns:
        Smoothed values, (n,).
    """
    n = len(values)
    smoothed = np.empty(n)
    for k in range(n):
        width = max(n / 40, 0.5)
        width *= max(1.0, 2 - min(k, n - 1 - k) / (2 * width))
        reach = math.ceil(4 * width)
        y = values[max(0, k - reach) : k + reach + 1]
        x = np.arange(len(y)) - min(k, reach)
        weights = np.exp(-0.5 * (x / width) ** 2)
        weights /= weights.sum()
        centre = weights @ x
        spread = weights @ (x - centre) ** 2
        slope = weights @ ((x - centre) * y) / spread if spread else 0.0
        smoothed[k] = weights @ y - slope * centre
    return smoothed
